"""What people are told, by a real server: every notice is provoked, and arrives with a text that says what to do."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from deployments.orchestration import automations, registration
from deployments.orchestration.work_pool import POOL
from flows.prefect_support import api, events
from tasks.ground import params
from tests.deployments.alone import Alone, post, server
from tests.deployments.conftest import until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def alone(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """A run that is pending for ten seconds is told about: the least that Prefect takes."""
    with server(small_copied, tmp_path_factory.mktemp("notices") / "project", PENDING_MINUTES=1 / 6) as alone:
        yield alone


def run(state: str) -> str:
    """A run of train/tiny in a state; gives its id."""
    deployment = api.call("/deployments/name/train/tiny")
    wanted = {"name": f"train/{state.lower()}", "state": {"type": "SCHEDULED"}}
    made = str(api.call(f"/deployments/{deployment['id']}/create_flow_run", wanted)["id"])
    asked = {"state": {"type": state, "name": state.capitalize(), "message": "as if"}, "force": True}
    assert api.call(f"/flow_runs/{made}/set_state", asked)["status"] == "ACCEPT"
    return made


def happened(event: str, name: str) -> list[dict[str, Any]]:
    """The events of this name about an automation of that name."""
    asked = {"filter": {"event": {"name": [event]}}, "limit": 50}
    found = api.call("/events/filter", asked)["events"]
    return [one for one in found if one["resource"].get("prefect.resource.name") == name]


@pytest.mark.slow
def test_of_a_run_that_does_not_start(alone: Alone) -> None:
    """It says which, since when, what to look at, and where it is; one that has started is nobody's business."""
    stuck, started = run("PENDING"), run("PENDING")
    running = {"state": {"type": "RUNNING", "name": "Running"}, "force": True}
    api.call(f"/flow_runs/{started}/set_state", running)
    api.call(f"/flow_runs/{started}", {"name": "train/started"}, method="PATCH")
    text = alone.message("train/pending does not start")
    assert text.startswith("It is pending for more than")
    assert "Is the worker alive (evergreen status)?" in text
    assert text.endswith(f"/runs/flow-run/{stuck}")
    assert "train/started does not start" not in [one["subject"] for one in alone.told]


def test_of_a_run_that_failed(alone: Alone) -> None:
    """With what it said at its end."""
    failed = run("FAILED")
    text = alone.message("train/failed: Failed")
    assert text.startswith("as if\n")
    assert text.endswith(f"/runs/flow-run/{failed}")


def test_of_an_automation_that_failed(alone: Alone) -> None:
    """Its name and the server's reason: here, that the deployment it was to trigger is gone."""
    deployment = api.call("/deployments/name/ingest/ingest")
    api.call(f"/deployments/{deployment['id']}", method="DELETE")
    post("evergreen.partition.landed", "evergreen.dataset.readings")
    text = alone.message("an automation failed: trigger ingest/ingest")
    assert text.startswith("Unexpected status from 'run-deployment' action: 404\n")
    assert "evergreen register" in text


def test_a_message_that_cannot_be_sent_is_not_told_for_ever(alone: Alone) -> None:
    """Somebody has removed the block: telling of that must fail, and to tell of the latter would go on without end."""
    block = api.call("/block_types/slug/custom-webhook/block_documents/name/evergreen-notify")
    api.call(f"/block_documents/{block['id']}", method="DELETE")
    post("evergreen.partition.refused", "evergreen.partition.readings.2013-05", dataset="readings", partition="2013-05")
    failed = "prefect.automation.action.failed"
    until(lambda: happened(failed, "notify: an automation failed"), 60, "the attempt to tell")
    time.sleep(4)
    assert len(happened(failed, "notify: a partition was refused")) == 1
    assert len(happened(failed, "notify: an automation failed")) == 1


def test_deploying_again_brings_back_what_was_removed(alone: Alone) -> None:
    """As the message says: the deployment and the block that the tests before have removed."""
    alone.project.run(sys.executable, "-m", "deployments.orchestration.registration")
    post("evergreen.partition.refused", "evergreen.partition.readings.2013-06", dataset="readings", partition="2013-06")
    assert alone.message("refused: readings 2013-06") == "no reason given"
    post("evergreen.partition.landed", "evergreen.dataset.readings")
    waiting = {"deployments": {"name": {"any_": ["ingest"]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    until(lambda: any(not one["auto_scheduled"] for one in api.call("/flow_runs/filter", waiting)), 30, "the trigger")


@pytest.mark.usefixtures("alone")
def test_the_deployments_of_a_flow_that_was_renamed_go_with_their_automations() -> None:
    """An update renamed the flow deploy to rollout: a server that still knows the old one runs a champion once."""
    flow = api.call("/flows/", {"name": "deploy"})["id"]
    body = {"name": "tiny", "flow_id": flow, "tags": [registration.TAG, "serving"]}
    old = api.call("/deployments/", {**body, "work_pool_name": POOL, "entrypoint": "flows/rollout.py:deploy"})["id"]
    trigger = automations.on_event(events.CHAMPION, f"{events.MODEL}.tiny")
    action = {"type": "run-deployment", "source": "selected", "deployment_id": old}
    name, about = automations.name_of("deploy/tiny"), "Wakes the flow (evergreen 0123456789ab)"
    api.call("/automations/", {"name": name, "description": about, "trigger": trigger, "actions": [action]})

    lines = registration.deploy(params.load())
    assert lines == ["deployment deploy/tiny removed: no such flow", "automation «trigger deploy/tiny» removed"]
    with pytest.raises(api.PrefectNotFound):
        api.call("/deployments/name/deploy/tiny")
    assert name not in {one["name"] for one in automations.registered()}
    assert registration.lacking(params.load()) == []


@pytest.mark.parametrize(("host", "may"), [("127.0.0.1", True), ("localhost", True), ("elsewhere.example", False)])
def test_the_page_that_a_link_opens_may_ask_the_api(alone: Alone, host: str, may: bool) -> None:
    """Under both names of this machine; a page of another site may not, through the browser of whoever opened it."""
    server = os.environ["PREFECT_API_URL"]
    origin = f"http://{host}:{urlsplit(server).port}"
    headers = {"origin": origin, "content-type": "application/json"}
    if may:
        with urllib.request.urlopen(f"{origin}/ui-settings", timeout=10) as answer:
            assert json.load(answer)["api_url"] == server
    with urllib.request.urlopen(urllib.request.Request(f"{server}/flows/count", b"{}", headers), timeout=10) as answer:
        assert answer.headers["access-control-allow-origin"] == (origin if may else None)
