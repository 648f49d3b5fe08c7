"""Puts the memory of a model's process to sleep and wakes it, while the process lives.

`control` is the socket on which the router asks for it, `sleeper` does it, `storages` finds the
memory, `arena` holds the copies, `threads` says who is at work, and `device` calls CUDA.
docs/gpu-sharing explains the whole.
"""


class Refused(Exception):
    """A sleep cannot be now, or ever. The message says why; nothing has been touched. `kind`:

    - `busy`: a thread of this process is at work; later it may be possible
    - `unfit`: this process cannot sleep
    - `no room`: the copies would take more host memory than they may
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind
