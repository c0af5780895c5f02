"""Search: the recipe's declared space tried by ordinary builds, down to a Pareto front."""
