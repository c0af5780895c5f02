"""The registry of releases: numbered, write-once, refused unless the verdict passed."""
