"""Delivery to connected clients: live consumers, long polls, back-pressure, replay, timers.

Guarantees for the packages above: a live consumer gets its queue's messages in order and at most once; when it
disconnects, messages leased to it return to the queue; a client that reads too slowly is disconnected; every wait has a
limit.
"""
