"""TensorRT from outside: the build plan of an engine, and what of an ONNX graph it would refuse.

Experimental (`optimize.experimental.TENSORRT`).
"""
