"""Learning weights: recipes, data, the run."""
