"""Security checklist for running servers and for models, manifests and proxies: findings, never changes."""
