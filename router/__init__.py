"""The router: every Cog package in a folder becomes an HTTP endpoint on one shared GPU.

Imports go one way only; import-linter checks them (see pyproject.toml).
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("callme-gpu")
except PackageNotFoundError:  # a checkout on the path that was not installed
    __version__ = "0"
