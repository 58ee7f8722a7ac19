"""Your models, a folder each: `evergreen add-model` makes one; by hand: docs/how-to/add-a-model.md."""
