"""Who runs, who is in memory, who waits: pure decisions, no I/O and no clock of their own.

Anything above may import it; it imports only errors.
"""
