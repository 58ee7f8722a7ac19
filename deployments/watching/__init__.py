"""What looks every few seconds whether the world changed, and triggers flows."""
