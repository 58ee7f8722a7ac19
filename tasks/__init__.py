"""What is done: plain functions, without Prefect. `flows/` says when, `deployments/` says where."""
