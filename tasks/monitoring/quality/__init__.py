"""How good the predictions are: measured, or estimated until labels come."""
