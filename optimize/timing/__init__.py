"""Timing: the cost of running an artifact here, in time and in memory."""
