"""Parity: how far two models' outputs are apart, at which sizes, and whether a contract allows it."""
