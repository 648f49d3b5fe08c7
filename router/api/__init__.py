"""HTTP faces: each speaks one dialect over `router.runtime`; none knows a model."""
