"""From a trained network to click probabilities of raw rows: export, bundle, scorer."""
