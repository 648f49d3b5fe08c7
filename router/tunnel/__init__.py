"""The box on the internet: cloudflared, who is told its address. Only `router.cli` imports it."""
