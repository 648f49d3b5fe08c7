"""Cog packages and their processes: catalogue, schemas, coglet, memory.

Imports no other room but the keys' and the prediction's types.
"""
