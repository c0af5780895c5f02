"""Pruning: what to remove and how small to become. Knows nothing of the store, of training or of recipes."""
