"""Envoy before the server: what it is told, starting and stopping it, what it saw, and routes made true on it."""
