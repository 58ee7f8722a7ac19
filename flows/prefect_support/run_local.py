"""A flow run here and now, in this process, as somebody at a terminal waits for it."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from flows.prefect_support import api

TAKES = {
    "ingest": "",
    "train": "<model> [again] [if_due]",
    "rollout": "<model> [target] [manifests] [branch] [remote]",
    "monitor": "<model>",
    "predict": "<model> <source> [to] [version] [chunk]",
}
"""The flows, and what each is given at a terminal, in order: <this> it needs, [this] it need not have."""


def run(name: str, *arguments: str) -> Any:
    """Run a flow against the server that PREFECT_API_URL names; gives its final state.

    Raises:
        PrefectApiError: there is no server.
    """
    from prefect.settings import get_current_settings

    if "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" not in os.environ:
        # a heartbeat tells the server that a run on some worker is alive; a run ends only at a full second of it
        get_current_settings().flows.heartbeat_frequency = None
    try:
        return getattr(import_module(f"flows.{name}"), name)(*arguments, return_state=True)
    except RuntimeError as error:  # what the flow itself raises is in its state
        if not str(error).startswith("Failed to reach API"):
            raise
        raise api.PrefectApiError(
            f"the Prefect server does not answer on {api.masked(os.environ['PREFECT_API_URL'])}. Start one (make up, "
            "or `prefect server start` in a second `make shell`), or set PREFECT_API_URL"
        ) from None
