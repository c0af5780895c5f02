"""Capacity of a server within its service-level objective: search, evidence, and cost."""
