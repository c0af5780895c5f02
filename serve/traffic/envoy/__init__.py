"""Envoy before the server: its configuration, start and stop, its records, and routes put in force on it."""
