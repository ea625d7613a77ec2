"""Delivery to connected clients: live consumers, long polls, back-pressure, replay, timers.

Callers above may rely on this: a live consumer gets its queue's messages in order and at most once; what it holds under
a lease comes back when it leaves; a client that reads too slowly is closed; nothing here waits without a limit.
"""
