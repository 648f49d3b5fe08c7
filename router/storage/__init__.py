"""What is stored on disk: the database, the spool, and the secrets of this box."""
