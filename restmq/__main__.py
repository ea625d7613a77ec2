"""``python -m restmq`` is ``restmq``."""

from restmq.cli import main

main()
