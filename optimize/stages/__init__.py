"""One stage each: run(config, source, context) -> Made. A stage never touches the store or the cache."""
