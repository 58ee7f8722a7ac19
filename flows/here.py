"""A flow run here and now, in this process, as somebody at a terminal waits for it."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

NAMES = ("ingest", "train", "deploy", "monitor", "predict")


def run(name: str, *arguments: str) -> Any:
    """Run a flow against the server that PREFECT_API_URL names; gives its final state."""
    from prefect.settings import get_current_settings

    if "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" not in os.environ:
        # a heartbeat tells the server that a run on some worker is alive; a run ends only at a full second of it
        get_current_settings().flows.heartbeat_frequency = None
    return getattr(import_module(f"flows.{name}"), name)(*arguments, return_state=True)
