"""Yours: a folder per model, and whoever delivers its data. How to add one: docs/how-to/add-a-model.md."""
