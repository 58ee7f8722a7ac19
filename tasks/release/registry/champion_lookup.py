"""Who is champion, asked in milliseconds where that can be: who finds nothing to do need not import MLflow.

A server is asked by two small HTTP calls. Whatever is not plain (a store that is a file, a version that was withdrawn,
an answer that is not understood) is left to tasks/release/registry/registry.py, which knows all states in between.
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
"""As tracking.CANDIDATE and registry.WITHDRAWN, which it would take long to import."""


class _Unclear(Exception):
    """To be asked through MLflow."""


def champion(model: str) -> ReleaseRef | None:
    """Who is to serve: the registry's champion, if there is one.

    Raises:
        RegistryUnavailable: the store is locked or gone.
    """
    try:
        return _glance(model)
    except _Unclear:
        from tasks.release.registry import registry

        found = registry.champion(model)
        if found is None or not found.candidate:  # never, withdrawn with nobody after it, or taken away by hand
            for done in registry.repair(model):
                logging.getLogger("evergreen").warning(done)
            found = registry.champion(model)
        return ReleaseRef(found.candidate, found.number) if found else None


def pending_change(model: str) -> tuple[str, str | None] | None:
    """Who is champion and who serves, if these are two; None too where that is not plain. Never imports MLflow."""
    try:
        found = _glance(model)
    except _Unclear:
        return None
    live = desired_state.read(model).live
    if found is None or (live and live.candidate == found.candidate):
        return None
    return found.candidate, live.candidate if live else None


def _glance(model: str) -> ReleaseRef | None:
    entry = _get("registered-models/get", name=model)
    aliases = {one["alias"]: one["version"] for one in (entry or {}).get("registered_model", {}).get("aliases", [])}
    if "champion" not in aliases:
        if desired_state.read(model).live:
            raise _Unclear  # somebody serves: was it taken away by hand?
        return None
    found = _get("model-versions/get", name=model, version=aliases["champion"])
    tags = {tag["key"]: tag["value"] for tag in (found or {}).get("model_version", {}).get("tags", [])}
    if CANDIDATE not in tags or WITHDRAWN in tags:
        raise _Unclear
    return ReleaseRef(tags[CANDIDATE], int(aliases["champion"]))


def _get(path: str, **asked: str) -> Any:
    """An answer of MLflow's REST API; None where there is no such thing."""
    parts = urllib.parse.urlsplit(mlflow_store.uri())
    named = any(os.environ.get(f"MLFLOW_TRACKING_{what}") for what in ("USERNAME", "TOKEN", "AUTH"))
    if parts.scheme not in ("http", "https") or parts.username or named:
        raise _Unclear
    url = f"{mlflow_store.uri().rstrip('/')}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(asked)}"
    try:
        return http.call(url, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 404 and b"RESOURCE_DOES_NOT_EXIST" in error.read():
            return None
        raise _Unclear from None
    except (OSError, ValueError):
        raise _Unclear from None
