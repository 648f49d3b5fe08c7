"""Makes the demo weights: drawn scenes, training, evaluation."""
