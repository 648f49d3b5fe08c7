"""The HTTP server: one module for each API, and what stands before all of them.

Imported by the composition (`router.app`) only.
"""
