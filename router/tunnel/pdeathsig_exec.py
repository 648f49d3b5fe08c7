"""`python tied.py PARENT_PID PROGRAM ARGUMENTS…`: becomes PROGRAM, which ends when its parent does.

A tunnel that outlived a killed router would lead the public to whatever listens on the port next.
Standard library only: it is run as a file.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2); it survives the exec


def main() -> None:
    """Ask the kernel for the signal, and become the program."""
    parent, program, *arguments = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        sys.exit(f"Cannot tie the program to its parent: {os.strerror(ctypes.get_errno())}")
    # The parent may have ended before the kernel was asked.
    if os.getppid() == int(parent):
        os.execv(program, [program, *arguments])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
