"""The platform of `make up` under what people and the world do to it. The tests go on from each other's state."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from deployments.watching import crash_recovery
from flows.prefect_support import api, triggers
from tasks.ground import process_tags, settings
from tests.deployments.conftest import PATIENCE, Platform, start, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(400 * PATIENCE)]


def test_a_hundred_events_are_no_hundred_trainings(platform: Platform) -> None:
    """They make one or two runs, which find that nothing is to be done and name the run that did it."""
    triggers.trigger("train/tiny")
    before = until(lambda: all(run["end_time"] for run in platform.runs("train")) and platform.runs("train"))
    related = [{"prefect.resource.id": "evergreen.dataset.readings", "prefect.resource.role": "dataset"}]
    for _ in range(100):
        event = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": "evergreen.data.version"}
        api.call("/events", [{**event, "resource": {"prefect.resource.id": "evergreen.data"}, "related": related}])
    until(lambda: len(platform.runs("train")) > len(before), what="the trigger")
    until(lambda: all(one["end_time"] for one in platform.runs("train")), what="the end of what was triggered")
    more = platform.runs("train")[: -len(before)]
    assert 1 <= len(more) <= 4
    for run in more:
        assert run["state"]["message"].startswith("nothing to do: already trained")
        assert before[0]["id"] in run["state"]["message"]


def test_an_outside_system_triggers_ingest_by_one_call(platform: Platform) -> None:
    """As docs/how-to/announce-data.md has it; nothing lies there, so nothing is done."""
    before = platform.runs("ingest")
    event = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": "evergreen.partition.landed"}
    api.call("/events", [{**event, "resource": {"prefect.resource.id": "evergreen.dataset.readings"}}])
    until(lambda: len(platform.runs("ingest")) > len(before) and platform.runs("ingest")[0]["end_time"])
    assert platform.runs("ingest")[0]["state"]["message"].startswith("nothing new")


def test_a_person_is_told_of_a_refused_partition(platform: Platform) -> None:
    """Through Prefect's own notification block, with the reason."""
    platform.deliver(5, content="station,at\nnorth,2013-05-01\n")
    refusal = until(lambda: [one for one in platform.told if one["subject"] == "refused: readings 2013-05"])[0]
    assert refusal["text"]


def test_without_var_run_it_is_found_and_goes_on(platform: Platform) -> None:
    """A second `make up` ends nothing of it; tokens, sockets, lock and note are made again."""
    run = platform.project.root / "var/run"
    before = {name: platform.service(name) for name in ("prefect", "mlflow", "router", "forkserver", "worker", "watch")}
    there = {"stack.json", "stack.lock", "router.token", "flows.sock", "watch.heartbeat"}
    assert there <= {path.name for path in run.iterdir()}
    shutil.rmtree(run)
    command = [sys.executable, "-m", "deployments.cli", "up"]
    both = [subprocess.Popen(command, cwd=platform.project.root, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert f"the platform of {platform.project.root} is up already." in process.communicate()[1]
        assert process.returncode == 1
    until(lambda: there <= {path.name for path in run.iterdir()}, 60, "what was removed")
    assert {name: platform.service(name) for name in before} == before
    assert "still running, and were ended" not in platform.console()
    done = platform.project.run(sys.executable, "-m", "deployments.cli", "status", check=False)
    assert (done.returncode, done.stdout.count("  answers  ")) == (0, 6), done.stdout


def test_without_var_log_it_goes_on_telling(platform: Platform) -> None:
    """Whatever is restarted, and whatever runs, finds a place for what it says."""
    log = platform.project.root / "var/log"
    flows = ("ingest", "train", "rollout", "monitor")
    until(lambda: all(run["end_time"] for flow in flows for run in platform.runs(flow)), what="the end of what runs")
    shutil.rmtree(log)
    os.kill(platform.service("watch"), signal.SIGKILL)
    run = triggers.trigger("monitor/tiny")
    until(lambda: api.call(f"/flow_runs/{run}")["end_time"], 120, "a run")  # or another one has answered it
    until(lambda: (log / "watch.log").exists() and (log / "flows.log").exists(), 30, "logs")
    until(lambda: "monitor/tiny" in platform.console(), 30, "a line of the run")


def test_a_params_yaml_that_is_broken_for_a_while_ends_nothing(platform: Platform) -> None:
    """Not even a worker that dies meanwhile; it is told, and goes on when it is mended."""
    path = platform.project.root / "params.yaml"
    text, before = path.read_text(), platform.console().count("worker      answers again")
    path.write_text("models: [")
    os.kill(platform.service("worker"), signal.SIGKILL)
    until(lambda: "no flow runs until params.yaml is repaired: " in platform.console(), 60, "a word")
    until(lambda: "watch       ParamsError: params.yaml" in platform.console(), 60, "a word of the watcher")
    assert platform.process.poll() is None
    path.write_text(text)
    until(lambda: platform.console().count("worker      answers again") > before, 120, "a worker")
    until(lambda: "all is well again" in platform.console(), 60, "a word")


def test_a_cancelled_run_ends_with_all_that_it_started(platform: Platform) -> None:
    """Nobody is told of a crash. What it was to do is still to be seen: so it is begun again, unless it is paused."""
    until(lambda: all(one["end_time"] for one in platform.runs("ingest")), what="the end of what runs")
    platform.deliver(7)
    run = until(lambda: [one for one in platform.runs("ingest") if one["state_name"] == "Running"], what="an ingest")[0]
    asked = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    assert api.call(f"/flow_runs/{run['id']}/set_state", asked)["status"] == "ACCEPT"
    ended = until(lambda: [one for one in platform.runs("ingest") if one["id"] == run["id"] and one["end_time"]])[0]
    assert ended["state_name"] == "Cancelled"
    until(lambda: run["id"] not in crash_recovery.local_processes().runs, 30, "the end of its processes")
    until((platform.project.root / "data/readings/2013-07.csv").exists, what="another ingest")
    assert [one for one in platform.told if one["subject"].startswith(run["name"])] == []


def test_what_is_interrupted_goes_on_with_the_next_make_up(platform: Platform) -> None:
    """The same run, and nobody is told of a crash. Ctrl-C ends everything; nothing is left that would keep a port."""
    until(lambda: all(one["end_time"] for one in platform.runs("ingest")), what="the end of what runs")
    platform.deliver(6)
    run = until(lambda: [one for one in platform.runs("ingest") if one["state_name"] == "Running"], what="an ingest")[0]
    end(platform)
    (interrupted,) = [line for line in platform.console().splitlines() if "interrupted, to go on with" in line]
    assert run["name"] in interrupted  # beside others, perhaps
    platform.process = start(platform.project.root)
    ended = until(lambda: (again := api.call(f"/flow_runs/{run['id']}"))["end_time"] and again, what="its end")
    # where the watcher has triggered another one first, that one covers it
    assert (ended["state_name"], ended["run_count"]) in [("Completed", 2), ("Coalesced", 1)]
    until((platform.project.root / "data/readings/2013-06.csv").exists, what="the partition")
    states = [one["name"] for one in api.call(f"/flow_run_states/?flow_run_id={run['id']}")]
    assert "Interrupted" in states
    assert "Crashed" not in states
    assert [one for one in platform.told if one["subject"].startswith(run["name"])] == []
    end(platform)


def end(platform: Platform) -> None:
    """Ctrl-C."""
    platform.process.send_signal(signal.SIGINT)
    assert platform.process.wait(timeout=60) == 0
    assert process_tags.tagged(str(settings.ROOT)) == []
    assert platform.console().endswith("down\n")
    done = platform.project.run(sys.executable, "-m", "deployments.cli", "status", check=False)
    assert (done.returncode, done.stdout) == (3, "the platform is not up. Start it: evergreen up\n")
