"""Pruning: selection and removal of units. Independent of the store, of training and of recipes."""
