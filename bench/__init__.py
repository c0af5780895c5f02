"""Floor 1: measures artifacts and judges them; never deploys. Imports optimize, never serve."""
