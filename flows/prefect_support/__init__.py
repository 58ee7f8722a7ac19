"""Prefect, as the flows use it: its API, tasks, events and triggers."""
