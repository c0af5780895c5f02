"""Records beyond a single run: baselines, histories, trial archives and accepted losses, each in its own journal."""
