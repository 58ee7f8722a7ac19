"""Which digit is this? The third model of the test: a folder and an entry, nothing else."""
