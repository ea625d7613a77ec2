"""Runs a program that ends with its parent, even if the parent is killed: ``child.py <parent's pid> <program> …``.

Only its own user can read the files that it creates. This file runs alone, in a new process, and imports nothing of
RestMQ.
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
        if os.getppid() != parent:  # the parent died before the call above
            sys.exit(1)
    os.umask(0o077)  # no other user may read its files
    os.setsid()  # Ctrl-C in the terminal reaches only the parent, which stops its children in order
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
