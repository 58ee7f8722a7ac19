"""A payment, and how strange it is: the model that the tests of anomalies are run with."""
