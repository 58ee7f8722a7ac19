"""Partitions: collected, validated, versioned."""
