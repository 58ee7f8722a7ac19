"""The state of the platform in lines: what the monitor knows of the release that is live, and which runs go on."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.local import status
from flows.prefect_support import api
from tasks.ground import files, paths
from tasks.release.registry import desired_state
from tasks.release.registry.desired_state import DesiredState, ReleaseRef
from tests.conftest import Project


def test_what_the_monitor_said_of_another_release_is_not_told_as_of_today(small: Project) -> None:
    """It looks every quarter of an hour; until then nothing is known of a release that went live."""
    report = {"release": {"candidate": "aaaa"}, "data": {"text": "as in training"}, "quality": {"text": "good"}}
    files.write_json(paths.monitoring_report("tiny"), report)
    desired_state.write("tiny", DesiredState(ReleaseRef("aaaa", 1)))
    assert list(status._monitored("tiny")) == ["data: as in training", "quality: good"]
    desired_state.write("tiny", DesiredState(ReleaseRef("bbbb", 2)))
    (line,) = status._monitored("tiny")
    assert line == "version 2 (bbbb) is live, and the monitor has not looked since: it does every quarter of an hour"


def test_a_run_that_a_schedule_made_has_the_name_of_its_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it begins, Prefect calls it «classy-lyrebird»."""
    monkeypatch.setattr(api, "call", lambda path: {"/flows/f": {"name": "monitor"}}[path])
    run: dict[str, Any] = {"name": "classy-lyrebird", "flow_id": "f", "parameters": {"model": "tiny"}}
    assert status._title(run) == "monitor/tiny"
    assert status._title({**run, "name": "train/tiny"}) == "train/tiny"
    assert status._title({**run, "name": "ingest", "parameters": {}}) == "ingest"
