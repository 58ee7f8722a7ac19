"""What a person runs beside the platform: the quickstart, load, a simulated year."""
