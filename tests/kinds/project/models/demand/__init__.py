"""Bicycles lent in an hour, up to a day ahead: the model that the tests of forecasts are run with."""
