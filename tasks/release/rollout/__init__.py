"""A release goes into production, stage by stage."""
