"""`python pdeathsig_exec.py PARENT_PID PROGRAM ARGUMENTS…` replaces itself by PROGRAM, which then
ends when its parent process does.

A tunnel that outlived a killed router would lead the public to the next program that listens on the
port. This file is run as a script, so it imports the standard library only.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2); it survives the exec


def main() -> None:
    """Ask the kernel for the signal at the parent's end, and execute the program."""
    parent, program, *arguments = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        sys.exit(f"Cannot tie the program to its parent: {os.strerror(ctypes.get_errno())}")
    # If the parent ended before `prctl`, the kernel sends no signal.
    if os.getppid() == int(parent):
        os.execv(program, [program, *arguments])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main()
