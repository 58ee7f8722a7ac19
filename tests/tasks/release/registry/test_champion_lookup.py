"""Who is champion, by two small HTTP calls; what is not plain is left to the registry."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks.ground import settings
from tasks.release.registry import champion_lookup, desired_state, registry
from tasks.release.registry.desired_state import DesiredState
from tests.tasks.release.fake_router import MODEL, NEW, OLD


@pytest.fixture(autouse=True)
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for what is written."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    return tmp_path


@contextmanager
def mlflow(answers: dict[str, tuple[int, Any]], patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server that answers these paths; gives what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, body = answers[self.path.partition("?")[0].removeprefix("/api/2.0/mlflow/")]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


GET, VERSION = "registered-models/get", "model-versions/get"


def entry(**aliases: str) -> tuple[int, Any]:
    """What MLflow says of a registered model."""
    said = [{"alias": alias, "version": version} for alias, version in aliases.items()]
    return 200, {"registered_model": {"name": MODEL, "aliases": said}}


def version(**tags: str) -> tuple[int, Any]:
    """What MLflow says of a version."""
    return 200, {
        "model_version": {"tags": [{"key": f"evergreen.{key}", "value": value} for key, value in tags.items()]}
    }


def test_the_champion_is_known_without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """By two small questions; a model without champion, and one that is not there, have none."""
    with mlflow(
        {GET: entry(champion="2", former="1"), VERSION: version(candidate=NEW.candidate)}, monkeypatch
    ) as asked:
        assert champion_lookup.champion(MODEL) == NEW
    assert [path.rpartition("/")[2] for path in asked] == ["get?name=late", "get?name=late&version=2"]
    with mlflow({GET: entry(former="1")}, monkeypatch):
        assert champion_lookup.champion(MODEL) is None
    with mlflow({GET: (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})}, monkeypatch):
        assert champion_lookup.champion(MODEL) is None


@pytest.mark.parametrize(
    "answers",
    [
        {GET: entry(champion="2"), VERSION: version(candidate=NEW.candidate, withdrawn="by a person")},
        {GET: entry(champion="2"), VERSION: version()},
        {GET: (500, {})},
        {GET: (404, {"error_code": "ENDPOINT_NOT_FOUND"})},
    ],
)
def test_what_is_not_plain_is_left_to_the_registry(answers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback that was killed half-way, an answer that is not understood: it knows the states in between."""
    found = registry.ModelVersion(MODEL, 1, OLD.candidate, "run", "2026-11-20")
    monkeypatch.setattr(registry, "champion", lambda _: found)
    with mlflow(answers, monkeypatch):
        assert champion_lookup.champion(MODEL) == OLD
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///somewhere.db")
    assert champion_lookup.champion(MODEL) == OLD


def test_a_change_is_seen_without_mlflow_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks every two seconds imports nothing heavy."""
    plain = {GET: entry(champion="2"), VERSION: version(candidate=NEW.candidate)}
    with mlflow(plain, monkeypatch):
        assert champion_lookup.pending_change(MODEL) == (NEW.candidate, None)
        desired_state.write(MODEL, DesiredState(OLD))
        assert champion_lookup.pending_change(MODEL) == (NEW.candidate, OLD.candidate)
        desired_state.write(MODEL, DesiredState(NEW))
        assert champion_lookup.pending_change(MODEL) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///somewhere.db")
    desired_state.write(MODEL, DesiredState(OLD))
    assert champion_lookup.pending_change(MODEL) is None
