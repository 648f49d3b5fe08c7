"""Connections to other machines, and which addresses they must not reach."""
