"""Who may call: keys, their holders, where they are kept."""
