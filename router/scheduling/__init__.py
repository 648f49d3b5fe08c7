"""The scheduler: which prediction runs, which model is in memory, which prediction waits.

Pure decisions: no I/O, and every call is given the time. It imports only `router.errors` from the
rest of the router, and any other package may import it.
"""
