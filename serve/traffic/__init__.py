"""Traffic: who is asked which version, and what the answers say about the candidate."""
