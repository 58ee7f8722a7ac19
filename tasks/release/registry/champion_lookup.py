"""Champion lookup without MLflow: two small HTTP calls, so that a flow with nothing to do ends in milliseconds.

Whatever is not plain (a store that is a file, a version that was withdrawn, an answer that is not understood) is left
to registry.py, which knows all states in between.
"""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from tasks.ground import http
from tasks.release.registry import desired_state, mlflow_store
from tasks.release.registry.desired_state import ReleaseRef

SECONDS = 5.0
"""How long the server may take."""

CANDIDATE, WITHDRAWN = "evergreen.candidate", "evergreen.withdrawn"
"""As tracking.CANDIDATE and model_state.WITHDRAWN, which it would take long to import."""


class _Unclear(Exception):
    """MLflow has to be asked."""


def champion(model: str) -> ReleaseRef | None:
    """The registry's champion, if there is one: what should serve."""
    try:
        return _ask_server(model)
    except _Unclear:
        from tasks.release.registry import alias_repair, registry

        version = registry.champion(model)
        if version is None or not version.candidate:  # never, withdrawn without a successor, or removed by hand
            for done in alias_repair.repair(model):
                logging.getLogger("evergreen").warning(done)
            version = registry.champion(model)
        return ReleaseRef(version.candidate, version.number) if version else None


def pending_change(model: str) -> tuple[str, str | None] | None:
    """The champion's and the live candidate, if these differ; None also where that is unclear.

    MLflow is imported only where its store is a team's database, which no server stands before.
    """
    try:
        wanted = _ask_server(model)
    except _Unclear:
        if not mlflow_store.uri().startswith("postgresql"):
            return None
        wanted = champion(model)
    live = desired_state.read(model).live
    if wanted is None or (live and live.candidate == wanted.candidate):
        return None
    return wanted.candidate, live.candidate if live else None


def _ask_server(model: str) -> ReleaseRef | None:
    entry = _get("registered-models/get", name=model).get("registered_model", {})
    aliases = {each["alias"]: each["version"] for each in entry.get("aliases", [])}
    if "champion" not in aliases:
        if desired_state.read(model).live:
            raise _Unclear  # a release is live: was the alias removed by hand?
        return None
    version = _get("model-versions/get", name=model, version=aliases["champion"]).get("model_version", {})
    tags = {tag["key"]: tag["value"] for tag in version.get("tags", [])}
    if CANDIDATE not in tags or WITHDRAWN in tags:
        raise _Unclear
    return ReleaseRef(tags[CANDIDATE], int(aliases["champion"]))


def _get(path: str, **query: str) -> Any:
    """An answer of MLflow's REST API, an object; empty where the thing does not exist."""
    parts = urllib.parse.urlsplit(mlflow_store.uri())
    needs_login = any(os.environ.get(f"MLFLOW_TRACKING_{what}") for what in ("USERNAME", "TOKEN", "AUTH"))
    if parts.scheme not in ("http", "https") or parts.username or needs_login:
        raise _Unclear
    url = f"{mlflow_store.uri().rstrip('/')}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
    try:
        return http.call(url, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 404 and b"RESOURCE_DOES_NOT_EXIST" in error.read():
            return {}
        raise _Unclear from None
    except (OSError, ValueError):
        raise _Unclear from None
