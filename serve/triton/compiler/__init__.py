"""The compiler: deployment and artifact, or an ensemble, become a ModelConfig, or are refused by name of the rule."""
