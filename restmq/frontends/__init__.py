"""Servers that accept other programs' formats and put them into ordinary queues.

Each module or package here is one ``twistd`` command: it has ``Options`` and ``makeService``. Nothing else imports it.
"""
