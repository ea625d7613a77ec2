"""Runs a program that ends with its parent, also when the parent is killed: ``launch.py <parent's pid> <program> …``.

What it writes can be read by its own account only.

This file is run by itself, in a fresh process, and imports nothing of RestMQ.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # Linux, prctl(2)


def main() -> None:
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked to be told
            sys.exit(1)
    os.umask(0o077)  # what it writes is for nobody else to read, wherever that is
    os.setsid()  # a Ctrl-C in the terminal is for the parent, which ends us when it is done with us
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
