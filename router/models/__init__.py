"""Cog packages and their processes: catalogue, schemas, coglet, memory.

From the rest of the router this imports only `router.prediction` and `router.errors`.
"""
