"""Rehearsals: a fault that is planted on purpose, and how long it takes until it is noticed and overcome."""
