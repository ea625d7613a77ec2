"""The SQS interface: Amazon's JSON 1.0 and query protocols on RestMQ's queues. The server loads it at its first use.

The wire is that of the Amazon SQS API Reference (API version 2012-11-05).
"""
