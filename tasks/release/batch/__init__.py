"""Batch scoring of files and partitions with a release."""
