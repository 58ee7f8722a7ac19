"""A pump, and whether it fails: the model that the tests of graph and flows are run with."""
