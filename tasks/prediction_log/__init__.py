"""The prediction log: a line per answered request, compacted to Parquet."""
