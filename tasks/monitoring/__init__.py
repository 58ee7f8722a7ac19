"""What serves, watched."""
