"""A flow run here and now, in this process, for somebody who waits at a terminal."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from flows.prefect_support import api
from tasks.ground import addresses
from tasks.ground.errors import Mistake


def run(name: str, *arguments: Any, **parameters: Any) -> Any:
    """Run a flow against the server that PREFECT_API_URL names; gives its final state.

    Raises:
        PrefectApiError: there is no server, or it fails.
        Mistake: the flow takes no such parameters.
    """
    from prefect.exceptions import ParameterTypeError, PrefectHTTPStatusError
    from prefect.settings import get_current_settings

    if "PREFECT_FLOWS_HEARTBEAT_FREQUENCY" not in os.environ:
        # a heartbeat tells the server that a run on some worker is alive; a run ends only at a full second of it
        get_current_settings().flows.heartbeat_frequency = None
    try:
        return getattr(import_module(f"flows.{name}"), name)(*arguments, **parameters, return_state=True)
    except ParameterTypeError as error:
        raise Mistake(str(error)) from None
    except PrefectHTTPStatusError as error:
        raise api.PrefectApiError(
            f"the Prefect server on {addresses.masked(os.environ['PREFECT_API_URL'])} answered "
            f"{error.response.status_code}: if it is busy, type it again; var/log/prefect.log says more"
        ) from None
    except RuntimeError as error:  # what the flow itself raises is in its state
        if not str(error).startswith("Failed to reach API"):
            raise
        raise api.PrefectApiError(
            f"the Prefect server does not answer on {addresses.masked(os.environ['PREFECT_API_URL'])}. Start one "
            "(`evergreen up`, or `prefect server start` in a second `make shell`), or set PREFECT_API_URL"
        ) from None
