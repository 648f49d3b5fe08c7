"""Connections to the public internet, and where they must not lead."""
