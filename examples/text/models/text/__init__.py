"""Messages, and the team that answers them."""
