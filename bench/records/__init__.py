"""What outlives a run: baselines, histories, archives of trials and accepted losses, each in a journal of its own."""
