"""One executor for what is wide: partitions, trainings, trials, backtests, files to score."""
