"""The HTTP APIs, one module or one name for each: native, cog, replicate, operations.

A module has its handlers and `add_routes`. One more API goes here.
"""
