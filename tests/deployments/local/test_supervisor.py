"""The platform of `make up`, with its real servers. The tests go on from each other's state, in this order."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from deployments.local import run_state, supervised_service, supervisor
from deployments.local.console import Console
from deployments.local.services import LocalService
from deployments.local.supervised_service import SupervisedService, Supervision
from deployments.orchestration import registration
from deployments.watching import crash_recovery
from flows.prefect_support import api, triggers
from tasks.ground import files, priority, process_tags, settings
from tasks.ground.errors import WorldError
from tests.deployments.conftest import PATIENCE, Platform, start, until
from tests.deployments.sessions import are_weighed, session_nice

pytestmark = pytest.mark.timeout(400 * PATIENCE)


def test_a_second_one_is_refused(platform: Platform) -> None:
    """It says that one is up, and what to do."""
    done = platform.project.run(sys.executable, "-m", "deployments.cli", "up", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Mistake: the platform of {platform.project.root} is up already.")


def test_status_says_that_all_is_well(platform: Platform) -> None:
    """Each service, and what all weigh when no flow runs: less than 1.5 GB."""
    done = until(lambda: _light(platform.project.run(sys.executable, "-m", "deployments.cli", "status")))
    assert [line.split()[:2] for line in done.stdout.splitlines()[:6]] == [
        [name, "answers"] for name in ("prefect", "mlflow", "router", "forkserver", "worker", "watch")
    ]
    assert "failures are sent to" in done.stdout


def _light(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str] | None:
    megabytes = int(done.stdout.split(" processes, ")[1].split(" MB")[0].replace(",", ""))
    return done if megabytes < 1500 else None


@are_weighed
def test_everything_gives_way_to_what_serves(platform: Platform) -> None:
    """To the router, and to what it has started."""
    assert session_nice(platform.service("router")) == 0
    for name in ("prefect", "mlflow", "forkserver", "worker", "watch"):
        assert session_nice(platform.service(name)) == priority.NICE


def test_a_delivery_is_trained_on_whatever_is_killed_meanwhile(platform: Platform) -> None:
    """The worker, its forkserver, both servers and the watcher are killed meanwhile: the run goes on to its verdict."""
    until(lambda: all(one["end_time"] for one in platform.runs("train")), what="the end of what the clock has begun")
    before = len(platform.runs("train"))
    platform.deliver(4)
    run = until(lambda: platform.runs("train")[: -before or None], what="a training")[0]
    for name in ("worker", "forkserver", "prefect", "mlflow", "watch"):
        os.kill(platform.service(name), signal.SIGKILL)
    until(lambda: platform.console().count("answers again") == 5, 120, "every service answers again")
    ended = until(lambda: [one for one in platform.runs("train") if one["id"] == run["id"] and one["end_time"]])
    assert ended[0]["state_name"] == "Completed"
    assert "challenger" in ended[0]["state"]["message"]
    artifacts = api.call("/artifacts/filter", {"artifacts": {"key": {"any_": ["verdict-tiny"]}}})
    assert "![the verdict](data:image/svg+xml;base64," in artifacts[0]["data"]


def test_a_hundred_events_are_no_hundred_trainings(platform: Platform) -> None:
    """They make one or two runs, which find that nothing is to be done and name the run that did it."""
    before = platform.runs("train")
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


# ── without a platform ────────────────────────────────────────────────────────────────────────────


def supervised(*services: LocalService) -> list[SupervisedService]:
    """These services, each of which answered a moment ago; the later ones depend on the first."""
    shared = Supervision(Console(io.StringIO()))
    made = [SupervisedService(service, shared, answers=True) for service in services]
    for other in made[1:]:
        other.dependencies = made[:1]
    return made


@pytest.mark.parametrize("silent", [["server", "worker"], ["worker"], []])
def test_a_service_that_hangs_is_killed(silent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """But not one that only waits for a server that hangs."""
    monkeypatch.setattr(supervised_service, "PROBE_SECONDS", 0)
    both = supervised(
        LocalService("server", ["sleep", "60"], lambda _: "server" not in silent, hang_seconds=0.2),
        LocalService("worker", ["sleep", "60"], lambda _: "worker" not in silent, hang_seconds=0.2),
    )

    async def probe() -> list[str]:
        for service in both:
            await service.start()
            service.probed_at = service.answered_at = time.monotonic()
        for _ in range(3):
            for service in both:
                await service.probe()
            await asyncio.sleep(0.15)
        killed = [service.name for service in both if service.process and service.process.returncode is not None]
        for service in both:
            await service.stop()
        return killed

    assert asyncio.run(probe()) == silent[:1]


def test_a_service_that_dies_at_once_ends_a_platform_that_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the end of its log; in one that is ready, it rests and the others go on."""
    monkeypatch.setattr(settings, "VAR", tmp_path)
    (dies,) = supervised(LocalService("router", ["sh", "-c", "echo no such port; exit 3"], lambda _: False))
    with pytest.raises(WorldError) as told:
        asyncio.run(dies.keep_running())
    assert str(told.value).startswith("router was ended with code 3, 5 times within 60 s: given up.\n    no such port")

    async def dies_again() -> None:
        running = asyncio.create_task(dies.keep_running())
        async with asyncio.timeout(60):
            while not dies.rest_seconds:
                await asyncio.sleep(0.01)
        assert not running.done()
        running.cancel()

    dies.shared.ready = True
    asyncio.run(dies_again())
    assert dies.rest_seconds == supervised_service.REST_SECONDS


def test_a_run_starts_in_a_folder_with_a_space_in_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's worker splits the command as a shell does."""
    python = "/a b/it's/.venv/bin/python"
    monkeypatch.setattr(sys, "executable", python)
    ingest = registration.Deployment("ingest", "ingest", "", [])
    command = registration._body(ingest)["job_variables"]["command"]
    assert shlex.split(command) == [python, "-m", "deployments.orchestration.flow_run"]


def test_a_full_disk_ends_no_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor keeps it from restarting a service: what it would note about itself is noted when there is room again."""

    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(settings, "VAR", tmp_path)
    watch = LocalService("watch", ["sleep", "60"], lambda _: True)
    lock = run_state.take_lock()
    assert lock
    up = supervisor.Supervisor([watch], Console(io.StringIO()), lock)

    async def start() -> int:
        process = await up.services[0].start()
        await up.services[0].stop()
        return process.pid

    with monkeypatch.context() as full:
        full.setattr(files, "write_json", write)
        pid = asyncio.run(start())
    with monkeypatch.context() as terminal:
        terminal.setattr(os, "fstat", lambda _: tmp_path.stat())  # what pytest has for one is a file without a name
        up._restore_run_state()
    assert files.read_json(tmp_path / "run/stack.json")["services"] == {"watch": pid}
    up.lock.release()


def end(platform: Platform) -> None:
    """Ctrl-C."""
    platform.process.send_signal(signal.SIGINT)
    assert platform.process.wait(timeout=60) == 0
    assert process_tags.tagged(str(settings.ROOT)) == []
    assert platform.console().endswith("down\n")
    done = platform.project.run(sys.executable, "-m", "deployments.cli", "status", check=False)
    assert (done.returncode, done.stdout) == (3, "the platform is not up. Start it: evergreen up\n")
