"""What needs more than one wing: whether a training is due, and a history replayed under a policy."""
