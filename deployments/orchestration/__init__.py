"""Prefect on this machine: its server, deployments, automations, worker and flow runs."""
