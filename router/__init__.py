"""The router: every Cog package in a folder becomes an HTTP endpoint on one shared GPU.

Imports go one way only; import-linter checks them (see pyproject.toml).
"""

from importlib.metadata import version

__version__ = version("callme-gpu")
