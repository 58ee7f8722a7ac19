"""What needs more than one domain: whether a training is due, and a history replayed under a policy."""
