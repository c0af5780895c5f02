"""How much traffic a server bears within its service-level objective: search, evidence, and what it costs."""
