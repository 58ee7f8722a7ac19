"""The flow rollout beside a real Prefect server, a real MLflow store and the real router, under load."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from deployments.local import servers
from deployments.watching.champion_watch import ChampionWatch
from flows.prefect_support import api, run_local
from tasks import steps
from tasks.ground import files, http, params, paths, settings
from tasks.ground.errors import DataMissing
from tasks.ground.git import Clone
from tasks.release import bento_store
from tasks.release.cluster import manifests
from tasks.release.gate import verdicts
from tasks.release.gate.verdict import Verdict
from tasks.release.package import package
from tasks.release.registry import desired_state, promotions, registry, tracking
from tasks.release.rollout import router_client, stages
from tests.conftest import Project
from tests.deployments.alone import Alone, server
from tests.deployments.conftest import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROLLOUT = """
    rollout: {start_s: 15, replay: 40, bake_s: 2, canary: 0.3, min_requests: 10, latency_ms: 150}
    serving:"""

MODEL = "tiny"


@dataclass
class World:
    """The small project, its router, and the releases that were made of its one model."""

    alone: Alone
    base: Path
    made: int = 0

    @property
    def project(self) -> Project:
        """Where it is."""
        return self.alone.project

    def release(self, change: Callable[[Path], object] = lambda _: None) -> desired_state.ReleaseRef:
        """A version more in the registry: the model's release with a change, packaged and tracked as by train."""
        self.made += 1
        release = settings.BUILD / MODEL / "release"
        files.remove(release)
        shutil.copytree(self.base, release)
        facts = files.read_json(release / "release.json")
        files.write_json(release / "release.json", {**facts, "about": f"release {self.made}"})
        change(release)
        (release / "candidate.json").unlink()
        candidate = files.digest(files.tree(release))[:16]
        files.write_json(release / "candidate.json", {"candidate": candidate})
        package.ensure_bento(MODEL)
        tracking.track(MODEL, release, settings.BUILD / MODEL, {"latency_ms": 3.0, "size_mb": 0.1})
        return desired_state.ReleaseRef(candidate, registry.register(MODEL, candidate).number)


def set_alias(one: desired_state.ReleaseRef) -> None:
    """As a person does it in MLflow's UI."""
    with registry.connect() as client:
        client.set_registered_model_alias(MODEL, "champion", str(one.version))


def roll() -> Any:
    """Run the flow here; gives its state."""
    return run_local.run("rollout", MODEL)


def story() -> str:
    """The page that the last run has left."""
    key = {"artifacts": {"key": {"any_": [f"rollout-{MODEL}"]}}, "sort": "CREATED_DESC", "limit": 1}
    return str(api.call("/artifacts/filter", key)[0]["data"])


@dataclass
class Load:
    """Clients that ask all the time; half of them open a connection for each request."""

    port: int
    answers: list[tuple[float, int, str]] = field(default_factory=list)
    """When, which status, by whom."""
    _ends: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(4)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        draw = random.Random(number)
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self._ends.wait(0.02):
            row = {"station": draw.choice(["north", "south"]), "weekday": draw.randint(1, 7), "hour": 6, "starts": 3}
            row |= {"pressure": round(draw.uniform(1, 4), 2), "vibration": round(draw.uniform(0, 3), 2)}
            connection.request("POST", f"/{MODEL}/predict", json.dumps({"rows": [row]}))
            response = connection.getresponse()
            response.read()
            self.answers.append((time.time(), response.status, response.headers.get("evergreen-release", "")))
            if number % 2:
                connection.close()
        connection.close()

    def by(self, one: desired_state.ReleaseRef, since: float = 0.0) -> int:
        """How many answers a release gave since then."""
        return sum(at > since and name == f"{MODEL}:{one.candidate}" for at, _, name in self.answers)

    @property
    def failed(self) -> list[tuple[float, int, str]]:
        """What was not answered well."""
        return [one for one in self.answers if one[1] != 200]


@pytest.fixture(scope="module")
def world(small_copied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The small project with a trained model, a Prefect server and a router; nothing serves yet."""
    root = tmp_path_factory.mktemp("rollout") / "project"
    with server(small_copied, root) as alone, pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVERGREEN_PORT", str(http.free_port()))
        alone.project.edit("params.yaml", "\n    serving:", ROLLOUT)
        for step in steps.STEPS:
            steps.run(step, [MODEL])
        base = shutil.copytree(settings.BUILD / MODEL / "release", root / "base")
        with router():
            yield World(alone, base)


@pytest.fixture
def served(world: World) -> desired_state.ReleaseRef:
    """A champion that serves; the one of the test before, or the first."""
    if (live := desired_state.read(MODEL).live) is None:
        set_alias(world.release())
        assert roll().is_completed()
        live = desired_state.read(MODEL).live
    assert live is not None
    return live


@pytest.fixture(autouse=True)
def moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried soon."""
    monkeypatch.setattr(stages, "RETRY_PAUSE_S", 0.5)


def router() -> Any:
    """The router of the project, until the block ends."""
    return servers.process([sys.executable, "-m", "deployments.serving.router"], "router")


def port() -> int:
    """Where it is."""
    return int(os.environ["EVERGREEN_PORT"])


def test_the_first_champion_serves_at_once(world: World) -> None:
    """Its Bento was changed, so it is made again; there is nobody to be compared with, so it answers everything."""
    assert roll().message == "tiny has no champion yet: nothing to serve"
    one = world.release()
    set_alias(one)
    with (settings.VAR / "bentoml" / "bentos" / MODEL / one.candidate / "src" / "model.skops").open("ab") as changed:
        changed.write(b"more")
    state = roll()
    assert state.is_completed()
    assert desired_state.read(MODEL).live == desired_state.ReleaseRef(
        one.candidate, one.version, desired_state.read(MODEL).live.since
    )
    assert "fetched from the registry, its hash checked, its Bento made" in story()
    assert "✓ | ask its golden rows | 20 golden rows answered exactly as evaluated" in story()
    assert "– | replay logged requests | skipped: it is the first, so there is no release to compare it with" in story()


def test_nothing_to_do_is_found_out_without_mlflow(served: desired_state.ReleaseRef) -> None:
    """And nothing is written."""
    before = paths.desired_state(MODEL).stat().st_mtime_ns
    state = roll()
    assert state.message.startswith(f"nothing to do: version {served.version} ({served.candidate}) serves since 2")
    assert paths.desired_state(MODEL).stat().st_mtime_ns == before


def test_a_new_champion_is_tried_on_real_requests_and_takes_over_without_a_failed_one(
    world: World, served: desired_state.ReleaseRef
) -> None:
    """Set by hand: fetched, warmed, asked its golden rows, replayed, given a share, then everything."""
    one = world.release()
    with Load(port()) as load:
        until(lambda: len(load.answers) > 100)
        set_alias(one)
        state = roll()
        until(lambda: load.by(one, time.time() - 1) > 20)
    assert state.is_completed(), state.message
    assert not load.failed
    now = desired_state.read(MODEL)
    assert (now.live.candidate, now.previous.candidate, now.canary) == (one.candidate, served.candidate, None)
    page = story()
    assert "40 logged requests replayed through both" in page
    assert "requests in 2 s, 0 errors; live release" in page
    assert page.count("rows are answered exactly as its model says") == 2
    assert "data:image/png;base64," in page
    assert [line["outcome"] for line in desired_state.history(MODEL)].count("live") == 2
    Path(os.environ.get("STORY", os.devnull)).write_text(page)


@pytest.mark.parametrize("harm", ["all is gone", "one file is gone", "a file was changed"])
def test_what_serves_is_brought_again_where_its_files_are_lost(
    world: World, served: desired_state.ReleaseRef, harm: str
) -> None:
    """Its replica died, and no other one starts: the next run brings it from the registry, and it serves."""
    home = settings.VAR / "bentoml" / "bentos"
    src = home / MODEL / served.candidate / "src"
    if harm == "all is gone":
        shutil.rmtree(home)
    elif harm == "one file is gone":
        (src / "tasks/runtime/replica.py").unlink()
    else:
        with (src / "model.skops").open("ab") as changed:
            changed.write(b"more")
    with router_client.RouterClient() as router:
        for pid in router.status(MODEL)[1].releases[served.candidate].pids:
            os.kill(pid, signal.SIGKILL)
        assert until(lambda: router.fault(MODEL, served.candidate))
        looking = ChampionWatch(lambda _: False)
        told = next(line for line in looking.look(params.load()))
        assert told.startswith(f"{served.candidate} is the live release of {MODEL} and does not start (")
        assert not list(looking.look(params.load())), "once"
        state = roll()
        assert state.is_completed(), state.message
        assert state.message.startswith(f"nothing to do: version {served.version} ")
        until(lambda: router.status(MODEL)[1].releases[served.candidate].state == "ready")
        assert package.stored(MODEL, served.candidate)
        assert not list(looking.look(params.load()))


def test_what_serves_and_is_nowhere_any_more_is_told(world: World, served: desired_state.ReleaseRef) -> None:
    """Neither here nor in the registry: the run says which, and what to do; it goes on as long as its process lives."""
    home = settings.VAR / "bentoml" / "bentos" / MODEL
    away = (home / served.candidate).rename(home / "away")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "find", lambda *_: None)
        assert roll().is_completed()
    away.rename(home / served.candidate)
    with pytest.raises(DataMissing, match=f"rollback {MODEL} --to N"):
        bento_store.ensure(MODEL, "0" * 16)


# ── releases that fail ────────────────────────────────────────────────────────────────────────────


def patched(file: str, old: str, new: str) -> Callable[[Path], object]:
    """A release with other code."""

    def change(release: Path) -> None:
        text = (release / file).read_text()
        assert old in text, f"{file} holds no {old!r}"
        (release / file).write_text(text.replace(old, new, 1))

    return change


BEGIN = "    from tasks.runtime import open_inference, predictor\n"

BAD = {
    "dies in production": (
        patched(
            "tasks/runtime/replica.py",
            "        replies = [(answer.status,",
            "        predictions and os.abort()\n        replies = [(answer.status,",
        ),
        "give it a share and watch: ",
    ),
    "hangs in production": (
        patched(
            "tasks/runtime/replica.py",
            "        replies = [(answer.status,",
            "        predictions and time.sleep(600)\n        replies = [(answer.status,",
        ),
        "give it a share and watch: ",
    ),
    "does not start": (
        patched("tasks/runtime/replica.py", BEGIN, "    raise RuntimeError('no such library')\n"),
        "no such library",
    ),
    "answers otherwise in production": (
        patched(
            "tasks/runtime/predictor.py",
            "        rows = [row.__dict__ for row in request.rows]\n",
            "        rows = [row.__dict__ for row in request.rows]\n"
            "        scores = [own[::-1] for own in scores] if counted else scores\n",
        ),
        "give it a share and watch: answers: ",
    ),
    "fails in production": (
        patched(
            "tasks/runtime/replica.py",
            "        replies = [(answer.status,",
            "        replies = [(500 if predictions else answer.status,",
        ),
        "give it a share and watch: errors: ",
    ),
}


EACH_COMMIT = ("answers otherwise in production", "dies in production")
"""The bad releases that each commit is tried with; the others are `long`."""


@pytest.mark.parametrize(
    "bad", [bad if bad in EACH_COMMIT else pytest.param(bad, marks=pytest.mark.long) for bad in BAD]
)
def test_a_bad_release_is_withdrawn_and_costs_no_answer(
    world: World, served: desired_state.ReleaseRef, bad: str
) -> None:
    """The live release stays live and is champion again, a notice is sent, and the bad one answers nothing any more."""
    change, why = BAD[bad]
    one = world.release(change)
    with Load(port()) as load:
        until(lambda: len(load.answers) > 50)
        set_alias(one)
        state = roll()
        withdrawn = time.time()
        until(lambda: load.by(served, withdrawn) > 20)
        assert not load.by(one, withdrawn)
    assert (state.type.value, state.name) == ("FAILED", "Withdrawn")
    assert why in state.message
    assert not load.failed
    assert desired_state.read(MODEL).live.candidate == served.candidate
    assert desired_state.read(MODEL).canary is None
    assert registry.champion(MODEL).number == served.version
    assert why in registry.history(MODEL)[one.version - 1].withdrawn
    assert "✗" in story()
    assert why in world.alone.message(f"withdrawn: tiny version {one.version}")
    assert roll().message.startswith("nothing to do: ")


@pytest.mark.long
def test_a_canary_that_stands_still_is_tried_again(world: World, served: desired_state.ReleaseRef) -> None:
    """As one that was killed: who stood still once is not barred for ever."""
    one = world.release()
    set_alias(one)
    with Load(port()) as load:
        going = subprocess.Popen([sys.executable, "-m", "deployments.cli", "rollout", MODEL], cwd=world.project.root)
        until(lambda: desired_state.read(MODEL).share, 60, "a canary")
        with router_client.RouterClient() as asked:
            os.kill(asked.status(MODEL)[1].releases[one.candidate].pids[0], signal.SIGSTOP)
        assert going.wait(timeout=120) == 0
    assert not load.failed
    assert desired_state.read(MODEL).live.candidate == one.candidate
    assert "tried again, as runs: " in story()


# ── back again, and killed ────────────────────────────────────────────────────────────────────────


def test_a_rollback_is_a_switch(world: World, served: desired_state.ReleaseRef) -> None:
    """The former one is warm: no golden rows, no replay, no canary; and the same way back by name."""
    one = world.release()
    set_alias(one)
    assert roll().is_completed()
    promotions.rollback(MODEL, to=served.version, reason="a person says so")
    begin = time.monotonic()
    state = roll()
    took = time.monotonic() - begin
    assert state.message == (
        f"version {served.version} ({served.candidate}) serves, and version {one.version} ({one.candidate}) no longer; "
        "it was live before, and was kept warm"
    )
    assert took < 10
    assert desired_state.read(MODEL).previous.candidate == one.candidate


def test_a_rollback_to_one_that_cannot_start_any_more_takes_nothing_away(
    world: World, served: desired_state.ReleaseRef
) -> None:
    """The live release was withdrawn and the champion fails: no version can be champion, so a notice is sent."""
    old = world.release(patched("tasks/runtime/replica.py", BEGIN, "    raise RuntimeError('worn out')\n"))
    promotions.rollback(MODEL, to=old.version, reason="a person says so")
    state = roll()
    assert state.name == "Stuck"
    assert f"evergreen rollback {MODEL} --to N" in state.message
    assert desired_state.read(MODEL).live.candidate == served.candidate
    assert "neither can be champion" in world.alone.message(f"withdrawn: tiny version {old.version}")
    promotions.rollback(MODEL, to=served.version)
    assert roll().message.startswith("nothing to do: ")


KILLED = """
import os, signal
from flows.prefect_support import run_local
from tasks.release.rollout import canary

def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
{patch}
run_local.run("rollout", "tiny")
"""


def killed(world: World, patch: str) -> None:
    """Run the flow in a process that dies where `patch` says."""
    died = world.project.run(sys.executable, "-c", KILLED.format(patch=patch), check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr


def test_a_killed_canary_is_ended_by_the_next_run(world: World, served: desired_state.ReleaseRef) -> None:
    """Kill -9 while it is watched: it goes on getting requests until the next run, which begins its watch again."""
    one = world.release()
    set_alias(one)
    with Load(port()) as load:
        killed(world, "canary.Watch.summary = die")
        assert desired_state.read(MODEL).share == 0.3
        assert roll().is_completed()
    assert not load.failed
    now = desired_state.read(MODEL)
    assert (now.live.candidate, now.previous.candidate) == (one.candidate, served.candidate)
    assert (now.canary, now.share) == (None, None)


@pytest.mark.long
def test_a_killed_router_is_not_held_against_a_release(world: World, served: desired_state.ReleaseRef) -> None:
    """It is back within seconds, and the rollout goes on."""
    # the fixture's router is killed, as make up would start it again: here by this test
    one = world.release()
    set_alias(one)
    with router_client.RouterClient() as asked:
        pid, _ = asked.status(MODEL)
    going = subprocess.Popen([sys.executable, "-m", "deployments.cli", "rollout", MODEL], cwd=world.project.root)
    until(lambda: desired_state.read(MODEL).share, 60, "a canary")
    os.kill(pid, signal.SIGKILL)
    with router():
        assert going.wait(timeout=60) == 0
        assert desired_state.read(MODEL).live.candidate == one.candidate
        assert roll().message.startswith("nothing to do: ")


def test_for_a_cluster_git_says_what_is_to_run_and_why(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit of the manifest's tag, with what the gate said of the version; the next run has nothing to do."""
    for name, value in {"name": "t", "email": "t@localhost"}.items():
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{who}_{name.upper()}", value)
    before = manifests.write(MODEL, "0" * 16, 1, "registry.example/evergreen", tmp_path)
    clone = Clone(tmp_path)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "by hand"]):
        clone.run(*words)
    one = world.release()
    set_alias(one)
    said = Verdict("a" * 16, MODEL, one.candidate, None, True, "promoted: there is no champion", (), {}, "r", {}, 0, 0)
    verdicts.keep(MODEL, one.version, said)
    state = run_local.run("rollout", MODEL, "kubernetes", str(tmp_path))
    assert state.message == f"{one}: commit {clone.run('rev-parse', 'HEAD').strip()[:12]}"
    assert one.candidate in before.read_text()
    assert clone.run("log", "-1", "--format=%B").splitlines()[2] == "promoted: there is no champion"
    again = run_local.run("rollout", MODEL, "kubernetes", str(tmp_path))
    assert again.message == f"{one}: nothing to do, the manifest says so"
