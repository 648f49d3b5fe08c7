"""Beside cog.yaml: what a runner in a sub-folder imports, as under Cog."""


def concat(a: str, b: str) -> str:
    """Both, with a space between."""
    return f"{a} {b}"
