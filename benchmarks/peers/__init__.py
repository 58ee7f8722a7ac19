"""What a team would otherwise serve flight_delay with, as its tutorials have it. benchmarks/serving.py starts it."""
