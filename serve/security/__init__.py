"""Whether what serves, and what is to be served, keeps to the security checklist: findings, never changes."""
