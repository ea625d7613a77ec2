"""``twistd syslogd``: every syslog line that is read from TCP or UDP becomes one message in its sender's queue.

A line is saved at least once, in the order of its sender, or it is counted as lost and named in the log.
"""
