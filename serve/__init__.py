"""Floor 2: places artifacts into Triton, shifts traffic to them, watches and retires them.

Imports bench and optimize.
"""
