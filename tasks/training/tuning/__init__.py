"""Tuning: hyper-parameters are tried on folds of the training rows; what comes of it is a proposal for params.yaml."""
