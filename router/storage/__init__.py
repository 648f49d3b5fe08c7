"""What is kept on disk: the database, the spool, the box's own secrets."""
