"""Watching: what the world should trigger and nobody announced."""
