"""Who may call: keys, whose they are, and where they are stored."""
