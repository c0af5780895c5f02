"""Everything that speaks Triton: configuration, repository, control, the real server from the wheel."""
