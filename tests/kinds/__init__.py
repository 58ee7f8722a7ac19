"""Models of other tasks than the shipped ones: the project that holds them, and their data."""
