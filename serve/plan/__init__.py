"""How to serve a model at a rate within an objective: measured latency by batch, a queue model, a plan, a search."""
