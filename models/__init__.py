"""Your models: a folder each, and the upstream of their data. How to add one: docs/how-to/add-a-model.md."""
