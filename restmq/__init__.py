"""RestMQ: a message queue that speaks HTTP and keeps its data in Redis."""

__version__ = "2.0.0"
