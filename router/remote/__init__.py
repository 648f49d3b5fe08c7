"""Models on another machine: Cog, Replicate, Modal. Only `router.backends` imports it."""
