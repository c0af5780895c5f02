"""Floor 0: makes artifacts (distill, prune, export, quantize, compile); knows nothing of the floors above."""
