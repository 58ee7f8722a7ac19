"""Who is champion, by two small HTTP calls; what is not plain is left to the registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tasks.release.registry import champion_lookup, desired_state, model_state, registry
from tasks.release.registry.desired_state import DesiredState
from tests.tasks.release.fake_router import MODEL, NEW, OLD, serving

pytestmark = pytest.mark.usefixtures("var")


@contextmanager
def mlflow(answers: dict[str, tuple[int, Any]], patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A server that answers these paths; gives what it was asked."""
    asked: list[str] = []

    def answer(path: str, *_: Any) -> tuple[int, Any]:
        asked.append(path)
        return answers[path.partition("?")[0].removeprefix("/api/2.0/mlflow/")]

    with serving(answer) as port:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        yield asked


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
    found = model_state.ModelVersion(MODEL, 1, OLD.candidate, "run", "2026-11-20")
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


def test_a_teams_database_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server stands before it, and a champion that does not serve is seen all the same."""
    found = model_state.ModelVersion(MODEL, 2, NEW.candidate, "run", "2026-11-20")
    monkeypatch.setattr(registry, "champion", lambda _: found)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://team@127.0.0.1/mlflow")
    desired_state.write(MODEL, DesiredState(OLD))
    assert champion_lookup.pending_change(MODEL) == (NEW.candidate, OLD.candidate)
    desired_state.write(MODEL, DesiredState(NEW))
    assert champion_lookup.pending_change(MODEL) is None
