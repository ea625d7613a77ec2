"""Modules of the daemons and of ``restmq``, imported once by the process that forks them; see ``tests/forked.py``."""

from importlib import import_module

for name in (
    "restmq.cli",
    "restmq.frontends.collectd",
    "restmq.frontends.syslog.daemon",
    "restmq.server.service",
    "tests.forked",
    "twisted.internet.reactor",
    "twisted.scripts.twistd",
):
    import_module(name)
