"""What all wings know of a model: its code, rows, metrics and profile."""
