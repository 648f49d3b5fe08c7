"""The box on the internet: cloudflared, and the announcement of its address. Only `router.cli`
imports this package."""
