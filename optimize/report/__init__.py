"""Report: tables, JSON and pages of what other rooms found; nothing is computed here."""
