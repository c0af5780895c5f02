"""Supervision of a server that runs: switching versions, journaled, probing them, bringing back what died."""
