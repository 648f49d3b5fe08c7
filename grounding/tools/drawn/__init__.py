"""Makes the drawn weights: drawn scenes, training, evaluation."""
