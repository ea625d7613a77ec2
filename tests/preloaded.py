"""Modules of our programs, imported once by the process that forks them; see ``tests/forked.py``."""

from importlib import import_module

for name in (
    "restmq.cli",
    "restmq.frontends.collectd",
    "restmq.frontends.syslog.daemon",
    "restmq.server.service",
    "restmq_engine",
    "tests.forked",
    "twisted.internet.reactor",
    "twisted.scripts.twistd",
    "twisted.trial.itrial",  # twistd reads all plugins, and Twisted's own import this
):
    import_module(name)
