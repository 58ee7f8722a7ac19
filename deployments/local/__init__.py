"""The local platform: its services on this machine, started, supervised and ended together."""
