"""The world outside: processes, files, databases, memory. Adapters see only ports and domain."""
