"""Tomorrow's load of a district."""
