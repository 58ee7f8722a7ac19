"""Drafts of a model: what a table says of itself, what smells of a leak, and the files that add-model writes of it."""
