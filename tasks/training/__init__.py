"""Files to files: prepare, train, evaluate."""
