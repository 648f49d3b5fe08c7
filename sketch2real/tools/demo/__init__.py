"""How the demo weights are made: drawn scenes, training, evaluation. Not needed to paint."""
