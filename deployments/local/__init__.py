"""The local stack: its services, kept running and reported on."""
