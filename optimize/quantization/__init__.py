"""Quantization: statistics of activations, ranges from them, and the graph surgery around both.

Knows nothing of recipes' order, caches or quality; the quantize stage (`stages.quantize`) calls it. What touches a
graph or a session lies in leaves named ``on_*``; the rest is arithmetic.
"""
