"""What every domain (data, training, release, monitoring) knows of a model: its code, rows, metrics and profile."""
