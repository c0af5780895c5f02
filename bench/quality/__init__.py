"""Quality of a served model: raw per-sample results as Measurements, never a judgement."""
