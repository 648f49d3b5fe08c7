"""How the demo weights were made: drawn scenes, training, evaluation. Serving needs none of it."""
