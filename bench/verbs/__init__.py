"""Floor 1's verbs by topic: thin skins over library functions, gathered by `bench.cli`."""
