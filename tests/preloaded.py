"""The modules of all daemons. The process that daemons are forked from imports this once; see ``tests/forked.py``."""
