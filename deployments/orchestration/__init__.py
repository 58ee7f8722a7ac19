"""What the Prefect server knows of the flows: deployments, automations, the worker."""
