"""The prediction log and the labels, taken in once."""
