"""Who runs, who is resident, who waits: pure decisions, no I/O and no clock of their own."""
