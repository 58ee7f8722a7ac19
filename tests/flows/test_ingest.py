"""The flow ingest beside a real Prefect server: what is told of refused partitions, whenever it is killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.prefect_support import api, events
from tests.deployments.alone import Alone, server
from tests.deployments.conftest import PATIENCE, until

pytestmark = pytest.mark.timeout(180 * PATIENCE)

KILLED = """
import os, signal
from flows.prefect_support import events, run_local; from flows import ingest
from tasks.ground import files

def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
{patch}
run_local.run("ingest")
"""


@pytest.fixture(scope="module")
def alone(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """The small project and a server that tells people."""
    with server(small_copied, tmp_path_factory.mktemp("ingest") / "project") as alone:
        yield alone


def land(alone: Alone, name: str) -> None:
    """A file that can only be refused."""
    path = alone.project.root / "var/landing/readings" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no table")


def ingest(alone: Alone, *, killed: str = "") -> None:
    """Run the flow in a process; `killed` replaces a function by the process' death."""
    if not killed:
        alone.project.run(sys.executable, "-m", "deployments.cli", "ingest")
        return
    died = alone.project.run(sys.executable, "-c", KILLED.format(patch=killed), check=False)
    assert died.returncode == -9, died.stderr


def refusals() -> list[str]:
    """The partitions that the server was told of; the same event counts once."""
    asked = {"filter": {"event": {"name": ["evergreen.partition.refused"]}}, "limit": 50}
    return sorted(one["payload"]["partition"] for one in api.call("/events/filter", asked)["events"])


REFUSES = """
import sys
from flows.prefect_support import as_task, run_local; from flows import ingest
from tasks.ground.errors import SourceUnavailable

def refuse(*_):
    try:
        raise OSError("no route")
    except OSError as error:
        raise SourceUnavailable("the landing zone cannot be reached: mount it") from error

ingest._collect = as_task.as_task(refuse, "collect", retries=int(sys.argv[1]))
sys.exit(not run_local.run("ingest").is_completed())
"""


@pytest.mark.parametrize("retries", ["0", "1"])
def test_an_error_is_one_line_and_its_traceback_is_in_a_file(alone: Alone, retries: str) -> None:
    """Whatever Prefect makes of it: in the task, the flow, and the state that the UI shows."""
    done = alone.project.run(sys.executable, "-c", REFUSES, retries, check=False)
    line = "SourceUnavailable: the landing zone cannot be reached: mount it"
    assert done.returncode == 1
    told = [said.partition("  ingest  ")[2] for said in done.stderr.splitlines() if "  ingest  " in said]
    assert told[2:] == [line]  # it begins, it is at
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    failed = {"flow_runs": {"state": {"type": {"any_": ["FAILED"]}}}, "sort": "START_TIME_DESC", "limit": 1}
    (run,) = api.call("/flow_runs/filter", failed)
    assert run["state"]["message"] == f"Flow run encountered an exception: {line}"
    logged = api.call("/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}, "level": {"ge_": 40}}})
    assert [one["message"] for one in logged] == [line]
    kept = (alone.project.root / "var/log/tracebacks.log").read_text(encoding="utf-8")
    assert kept.count("OSError: no route") == int(retries) + 1
    assert "ingest  SourceUnavailable\nTraceback " in kept


def test_a_mistake_of_a_person_is_one_line(alone: Alone) -> None:
    """A name that there is not: the command says so before it starts a flow."""
    done = alone.project.run(sys.executable, "-m", "deployments.cli", "train", "tinny", check=False)
    assert done.returncode == 1
    assert done.stderr == "ParamsError: params.yaml: there is no model 'tinny' below `models`; did you mean 'tiny'?\n"


@pytest.mark.slow
def test_a_refusal_is_told_once(alone: Alone) -> None:
    """As long as it lies in quarantine; with the reason."""
    land(alone, "2013-04.txt")
    ingest(alone)
    text = alone.message("refused: readings 2013-04")
    assert "its suffix is .txt" in text
    ingest(alone)
    land(alone, "2013-05.txt")
    ingest(alone)
    alone.message("refused: readings 2013-05")
    until(lambda: refusals() == ["2013-04", "2013-05"], 10, "one event of each")
    assert [one["subject"] for one in alone.told].count("refused: readings 2013-04") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "killed", ["events.refused = die", "ingest._report = die", "ingest.create_markdown_artifact = die"]
)
def test_a_refusal_whose_run_was_killed_is_told_by_the_next(alone: Alone, killed: str) -> None:
    """Before it was told, and after it was told but before that was noted: the latter is known to be the same event."""
    partition = killed.partition(" ")[0].replace(".", "-")
    land(alone, f"{partition}.txt")
    ingest(alone, killed=killed)
    assert list((alone.project.root / "var/quarantine/readings").glob(f"{partition}-*/report.json"))
    assert not list((alone.project.root / "var/landing/readings").iterdir())
    ingest(alone)
    alone.message(f"refused: readings {partition}")
    until(lambda: refusals().count(partition) == 1, 10, "one event")
    land(alone, f"after-{partition}.txt")
    ingest(alone)
    alone.message(f"refused: readings after-{partition}")  # so what was to come before it has come
    assert [one["subject"] for one in alone.told].count(f"refused: readings {partition}") == 1
    assert refusals().count(partition) == 1


def test_what_the_server_has_lost_is_told_again(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers before it stores; killed in between, it knows nothing of it. As long as it stores nothing, no note."""
    call, posted = api.call, []

    def lose(path: str, body: Any = None, *rest: Any, **more: Any) -> Any:
        if path == "/events" and not posted:
            posted.append(body)
            return None
        return call(path, body, *rest, **more)

    monkeypatch.setattr(api, "call", lose)
    monkeypatch.setattr(events, "STORED_S", 8.0)
    before = refusals().count("2001-01")
    event = events.refused("readings", "2001-01", "nowhere", "for a test")
    assert refusals().count("2001-01") == before
    events.stored([event])
    assert refusals().count("2001-01") == before + 1
    alone.message("refused: readings 2001-01")


def test_what_is_refused_once_more_is_told_once_more(alone: Alone) -> None:
    """The same bytes, delivered again: whoever sent them has not understood."""
    before = refusals().count("2013-04")
    land(alone, "2013-04.txt")
    ingest(alone)
    until(lambda: refusals().count("2013-04") == before + 1, 10, "another event")


def woken() -> int:
    """How often train/tiny was woken, the schedule apart."""
    which = {"deployments": {"name": {"any_": ["tiny"]}}, "flows": {"name": {"any_": ["train"]}}}
    return len([run for run in api.call("/flow_runs/filter", which) if not run["auto_scheduled"]])


@pytest.mark.long
def test_a_version_that_comes_back_is_told_anew_and_none_is_told_twice(alone: Alone) -> None:
    """A row is taken away, and brought again; told and not yet noted, a kill comes between."""
    ingest(alone)
    file = max((alone.project.root / "data/readings").iterdir())
    content, told = file.read_bytes(), woken()
    shorter = content[: content.rindex(b"\n", 0, -1) + 1]
    for turn in range(4):
        file.write_bytes(content if turn % 2 else shorter)
        alone.project.run("dvc", "add", "data")
        if turn == 2:
            ingest(alone, killed="events.data_version = die")
            assert woken() == told + turn + 1
        ingest(alone)
        assert woken() == told + turn + 1
        ingest(alone)
        assert woken() == told + turn + 1
