"""Intake: a user's model, run on samples before it enters the store."""
