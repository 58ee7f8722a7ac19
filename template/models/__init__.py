"""Your models, a folder each: docs/how-to/add-a-model.md."""
