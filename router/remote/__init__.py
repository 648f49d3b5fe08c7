"""Models on other machines: Cog, Replicate, Modal. Only `router.backends` imports this package."""
