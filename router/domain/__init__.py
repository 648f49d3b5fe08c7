"""What the router talks about: predictions, packages, errors, messages. Standard library only."""
