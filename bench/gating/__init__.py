"""Gating: two arms in turn on fresh servers, the judge of what they left, and trials of the gate itself."""
