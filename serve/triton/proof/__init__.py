"""Proof: a configuration or a version must answer known inputs as its artifact does, in a server, first."""
