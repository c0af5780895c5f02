"""Measuring one subject: in fresh pinned processes, watched from outside, as figures of raw values."""
