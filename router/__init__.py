"""The router: every Cog package in a folder becomes an HTTP endpoint on one shared GPU.

Imports go one way (checked by import-linter, see pyproject.toml):
cli → app → api | adapters → runtime → scheduling → ports → domain.
"""

from importlib.metadata import version

__version__ = version("callme-gpu")
