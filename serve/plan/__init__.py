"""Plans for serving at a rate within an objective: measured latency by batch, a queue model, a plan, a search."""
