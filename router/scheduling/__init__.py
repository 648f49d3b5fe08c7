"""The scheduler: which prediction runs, which model is in memory, which prediction waits.

Pure decisions: no I/O, and every call is given the time. Any other package of the router may
import this one; it imports only `router.errors`.
"""
