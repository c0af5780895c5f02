"""Graphs as plain values: what an engine runs, its coverage, and edits of ONNX graphs."""
