"""One engine each behind one protocol, run(inputs) -> outputs; the only rooms that open a model."""
