"""Pictures of digits."""
