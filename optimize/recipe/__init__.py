"""Recipe: what a user asks for, as types: stages and their configurations, data, targets, the space of a search."""
