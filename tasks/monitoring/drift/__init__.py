"""Has the world moved? Daily summaries against those of the reference."""
