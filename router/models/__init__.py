"""Cog packages and their processes: catalogue, schemas, coglet, memory.

From the rest of the router this imports only `router.prediction`, `router.errors` and
`router.trace_context`.
"""
