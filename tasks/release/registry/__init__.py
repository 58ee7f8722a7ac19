"""Versions, runs and the champion, as MLflow keeps them; and what should serve."""
