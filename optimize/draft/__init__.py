"""Draft: the first recipe for a user's model, with its sample loader and deployment."""
