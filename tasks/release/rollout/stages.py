"""A release goes into production: one stage after the other, each of which looks at what is and does what is missing.

    bring     its Bento is here, whole, and what its name says
    warm      the router keeps it ready beside who serves, before a deadline
    golden    it answers the rows that it carries along as it was evaluated
    replay    it answers what production has asked: as its model does, as fast as who serves, and as the gate expected
    bake      it answers a share of the requests for a while, watched
    go_live   it answers everything; who served before is kept warm

A stage gives an `Outcome`. Where that is a no, flows/rollout.py withdraws the release. What may be a moment's fault (a
process that died or stood still, slowness) is tried again before; what the world does wrong (no router, no registry)
raises, is held against nobody, and the next run begins where this one ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tasks.ground import files, params, settings
from tasks.ground.errors import DataMissing, ModelFileRefused, ReleaseDiffers, WorldError
from tasks.release.gate.verdict import Check, Moves
from tasks.release.package import package
from tasks.release.registry import desired_state
from tasks.release.registry.champion_lookup import champion as champion_in_registry
from tasks.release.registry.desired_state import ReleaseRef
from tasks.release.rollout.canary import LOOK_S, Watch
from tasks.release.rollout.paired_answers import Pairs
from tasks.release.rollout.router_client import PAUSE, Reply, RouterClient, fault, last_line
from tasks.release.rollout.router_status import LATE, ModelStatus, ReleaseStatus
from tasks.release.rollout.served_answers import MOST_ROWS, OwnAnswers
from tasks.release.rollout.shadow_replay import CHANCE, Replayed

WANTED_S = 2.0
"""How often it is asked meanwhile who is champion: who sets another one need not wait for the end of a rollout."""

FIRST = 5
"""So many times longer may the first release of a model take to start: nobody else answers meanwhile, and a router that
has just begun imports everything."""

BEGIN_S = 60.0
"""How long the router may take until it has begun with a release: that is not the release's fault."""

TELL_S = 5.0
"""How often a watch compares answers, and tells how it goes."""

TRIES = 3
"""So many times in all a stage is tried that fails by what may be a moment's fault: a process that stood still or was
killed, a machine that was busy with something else."""

CALM_S = 10.0
"""Seconds before it is tried again, without requests for it."""

MOMENTARY = {"runs", "latency median", "latency p99"}
"""The checks that speak of a process and its machine, and not of what the release answers."""

PAIRED = 50
"""Requests of a canary that are asked of who serves as well, each time answers are compared."""

Way = Literal["first", "new", "again", "back"]


class Superseded(Exception):
    """Somebody else is champion now: this rollout has no purpose any more."""


class RouterLags(WorldError):
    """The router answers, but does not do what var/serving says."""


@dataclass(frozen=True)
class Outcome:
    """What a stage found. `passed` is None where it had nothing to do, or nothing to go by."""

    passed: bool | None
    said: str
    checks: tuple[Check, ...] = ()
    facts: Replayed | Watch | None = None
    momentary: bool = False
    """It failed, but perhaps not by its own fault."""


@dataclass
class Rollout:
    """One release on its way."""

    model: str
    one: ReleaseRef
    limits: params.Rollout
    router: RouterClient
    tell: Callable[[str], object] = print
    _asked: float = field(default=float("-inf"), repr=False)

    @property
    def tag(self) -> str:
        """The release's name."""
        return f"{self.model}:{self.one.candidate}"

    @property
    def live(self) -> ReleaseRef | None:
        """Who serves."""
        return desired_state.read(self.model).live

    @cached_property
    def expected(self) -> Moves | None:
        """How far the gate knew that answers would move from who serves to this release; None: it never said so."""
        return expected_moves(self.model, self.one.candidate, self.live.candidate) if self.live else None

    def status(self) -> tuple[int, ModelStatus]:
        """The router's process number, and what it does for the model."""
        return self.router.status(self.model)

    def ask(self, candidate: str) -> Callable[[list[dict[str, Any]]], Reply]:
        """Asks one release; once more where its process was ended meanwhile, as the router does in production."""
        known = self._processes(candidate)

        def once_more(rows: list[dict[str, Any]]) -> Reply:
            nonlocal known
            reply = self.router.predict(self.model, candidate, rows)
            if reply.status < 500 or known == (now := self._processes(candidate)):
                return reply
            self.await_ready(candidate)
            known = now
            return self.router.predict(self.model, candidate, rows)

        return once_more

    def refuse_superseded(self, now: bool = False) -> None:
        """See from time to time that it is still wanted.

        Raises:
            Superseded: it is not.
        """
        if now or time.monotonic() - self._asked > WANTED_S:
            self._asked = time.monotonic()
            champion = champion_in_registry(self.model)
            if champion is None or champion.candidate != self.one.candidate:
                raise Superseded(f"{champion or 'nobody'} is champion now")

    def release(self, candidate: str) -> ReleaseStatus | None:
        """What the router knows of a release; None until it has begun with it."""
        return self.status()[1].releases.get(candidate)

    def is_ready(self, candidate: str) -> bool:
        """Whether the router says that a release is ready."""
        release = self.release(candidate)
        return release is not None and release.state == "ready"

    def _processes(self, candidate: str) -> tuple[int, list[int] | None]:
        router, status = self.status()
        release = status.releases.get(candidate)
        return router, release.pids if release else None

    def await_ready(self, candidate: str) -> None:
        """Wait until it is ready, or was not in time."""
        deadline = time.monotonic() + self.limits.start_s
        while not self.is_ready(candidate) and time.monotonic() < deadline:
            time.sleep(PAUSE)


def way(model: str, one: ReleaseRef) -> tuple[Way, str]:
    """Which way a release goes, and why.

    `first`: nothing serves, so there is nobody to be compared with. `back`: it served before and is warm. `again`: it
    served before, but has to be started. `new`: all stages.
    """
    now = desired_state.read(model)
    if now.live is None:
        return "first", "it is the first, so there is nobody to compare it with"
    if now.previous and now.previous.candidate == one.candidate:
        return "back", "it served before, and was kept warm"
    if desired_state.has_served(model, one.candidate):
        return "again", "it served before: production has asked it already"
    return "new", ""


def expected_moves(model: str, challenger: str, live: str) -> Moves | None:
    """How far answers are to move, by the verdict that promoted the one over the other; None where there is none.

    Where releases between the two were promoted and never went live, by the sum of their verdicts.
    """
    from tasks.release.registry import registry

    expected, candidate, passed = None, challenger, set[str]()
    while candidate != live:
        passed.add(candidate)
        known = [v for v in registry.verdicts(model, candidate) if v.promoted and v.moves and v.champion not in passed]
        verdict = next((v for v in known if v.champion == live), known[-1] if known else None)
        if verdict is None or verdict.moves is None or verdict.champion is None:
            return None
        expected = verdict.moves + expected if expected else verdict.moves
        candidate = verdict.champion
    return expected


def _tried_again(rollout: Rollout, attempt: Callable[[], Outcome]) -> Outcome:
    """What may be a moment's fault is tried again, before it is held against the release."""
    failed: list[str] = []
    while True:
        outcome = attempt()
        if not outcome.momentary:
            more = f"; tried again, as {failed[0]}" if failed else ""
            return replace(outcome, said=outcome.said + more)
        failed.append(outcome.said)
        if len(failed) == TRIES:
            return replace(outcome, said=f"{outcome.said} (tried {TRIES} times)")
        rollout.tell(f"{outcome.said}. That may be of the moment: it is tried again in {CALM_S:g} s")
        _pause(rollout)


def _pause(rollout: Rollout) -> None:
    deadline = time.monotonic() + CALM_S
    while time.monotonic() < deadline:
        rollout.refuse_superseded()
        time.sleep(PAUSE)


# ── the stages ────────────────────────────────────────────────────────────────────────────────────


def bring(rollout: Rollout) -> Outcome:
    """Its Bento is in the store, with the hash that is its name; brought from the registry where it is not."""
    candidate = rollout.one.candidate
    if package.stored(rollout.model, candidate):
        return Outcome(None, f"the Bento {rollout.tag} is here, and its hash is its name")
    from tasks.release.registry import registry

    champion = registry.champion(rollout.model)
    if champion is None or champion.candidate != candidate:
        raise Superseded(f"{champion or 'nobody'} is champion now")
    try:
        package.ensure_bento_of(registry.fetch_cached(rollout.model, champion) / "release")
    except (DataMissing, ModelFileRefused) as error:
        return Outcome(False, str(error))
    return Outcome(True, "fetched from the registry, its hash checked, its Bento made")


def warm(rollout: Rollout) -> Outcome:
    """It is ready beside who serves. One that cannot start is given up as soon as that is said, or at the deadline."""

    def attempt() -> Outcome:
        outcome = _warm(rollout)
        if outcome.momentary:  # it is to start anew
            desired_state.write(rollout.model, desired_state.read(rollout.model).without_challenger())
        return outcome

    return _tried_again(rollout, attempt)


def _warm(rollout: Rollout) -> Outcome:
    now = desired_state.read(rollout.model)
    if rollout.is_ready(rollout.one.candidate) and _is_kept(now, rollout.one):
        return Outcome(None, "it is warm")
    if not _is_kept(now, rollout.one):
        desired_state.write(rollout.model, now.with_challenger(rollout.one))
    limit = rollout.limits.start_s * (1 if now.live else FIRST)
    router, called = None, time.monotonic()
    begin = called
    while True:
        current, status = rollout.status()
        release = status.releases.get(rollout.one.candidate)
        if current != router:  # killed and started anew: it begins from the beginning
            router, begin = current, time.monotonic()
        if release and release.state == "ready":
            return Outcome(True, f"ready after {release.startup_s or 0:.1f} s")
        if why := fault(release):
            return Outcome(False, f"it does not start: {why}")
        waits = release is not None and release.starting_s is None
        if waits and time.monotonic() - called < BEGIN_S:
            begin = time.monotonic()
        if time.monotonic() - begin > limit:
            if release is None or waits:
                raise RouterLags(f"{rollout.router.address} has not begun with {rollout.one}. See var/log/router.log")
            about = f": {last_line(release.why)}" if release.why else ""
            return Outcome(False, f"it is not ready {limit:g} s after it was started{about}", momentary=True)
        rollout.refuse_superseded()
        time.sleep(PAUSE)


def golden(rollout: Rollout) -> Outcome:
    """It answers its golden rows exactly as it was evaluated: all of them together, and one alone."""
    return _tried_again(rollout, lambda: _ask_golden(rollout))


def _ask_golden(rollout: Rollout) -> Outcome:
    import pandas as pd

    facts, rows = _facts(rollout), _golden(rollout)
    expected = pd.DataFrame([row["predicted"] for row in rows], index=[row["id"] for row in rows])
    ask = rollout.ask(rollout.one.candidate)
    try:
        for some in (slice(0, len(rows)), slice(0, 1)):
            reply = ask([row["row"] for row in rows[some]])
            if reply.status >= 500:
                late = reply.status in LATE
                return Outcome(False, f"it does not answer its golden rows: {reply.said}", momentary=late)
            body = reply.body if reply.status == 200 else {"detail": [], **reply.body}
            package.refuse_difference(rollout.tag, expected.iloc[some], {"status": reply.status, "body": body}, facts)
            if reply.status == 200 and body["release"] != rollout.tag:
                return Outcome(False, f"the release that answers says it is {body['release']}")
    except ReleaseDiffers as error:
        return Outcome(False, str(error))
    return Outcome(True, f"{len(rows)} golden rows answered exactly as evaluated")


def replay(rollout: Rollout) -> Outcome:
    """The newest logged requests, or its golden rows where there are none, asked of it and of who serves."""
    from tasks.prediction_log import prediction_log

    logged = [one.rows for one in prediction_log.last_requests(rollout.model, rollout.limits.replay)]
    requests = logged or [[row["row"]] for row in _golden(rollout)]
    of = "logged requests" if logged else "golden rows, as no request was logged yet,"
    return _tried_again(rollout, lambda: _replay(rollout, requests, of))


def _replay(rollout: Rollout, requests: list[list[dict[str, Any]]], of: str) -> Outcome:
    from tasks.release.rollout import shadow_replay as replaying

    live, facts, limits = rollout.live, _facts(rollout), rollout.limits
    assert live is not None, "who is the first has nobody to be compared with"
    replayed = Replayed(asked=len(requests), task=facts["task"], features=facts["features"])
    sides = rollout.ask(live.candidate), rollout.ask(rollout.one.candidate)
    replaying.replay(replayed, _while_wanted(rollout, requests), *sides, limits)
    own = OwnAnswers(rollout.model, _folder(rollout))
    own.compare(replayed.rows, replayed.answers)
    checks = [*replaying.judge(replayed, limits), own.check()]
    if replayed.rows:
        checks.append(replayed.check(rollout.expected, limits, CHANCE))
    stopped = f"; stopped, as {replayed.stopped}" if replayed.stopped else ""
    return _judged(tuple(checks), f"{replayed.requests} {of} replayed through both{stopped}", replayed)


def bake(rollout: Rollout) -> Outcome:
    """A share of the requests for a while, watched twice a second."""
    if rollout.limits.bake_s == 0:
        return Outcome(None, "no canary: bake_s is 0")

    def attempt() -> Outcome:
        rollout.await_ready(rollout.one.candidate)
        desired_state.write(rollout.model, desired_state.read(rollout.model).with_canary(rollout.limits.canary))
        try:
            outcome = _watch(rollout)
        except BaseException:
            take_share_back(rollout.model)  # nobody watches any more
            raise
        if outcome.momentary:
            take_share_back(rollout.model)
        return outcome

    return _tried_again(rollout, attempt)


def take_share_back(model: str) -> bool:
    """No requests for a canary that nobody watches; gives whether there was one."""
    now = desired_state.read(model)
    if now.share is not None:
        desired_state.write(model, now.with_canary(None))
    return now.share is not None


def _watch(rollout: Rollout) -> Outcome:
    limits, live, facts = rollout.limits, rollout.live, _facts(rollout)
    assert live is not None, "who is the first has nobody to share with"
    watch = Watch(
        OwnAnswers(rollout.model, _folder(rollout)), Pairs(facts["task"], facts["features"]), rollout.expected
    )
    compared: set[str] = set()
    begin = told = time.monotonic()
    router = None
    while True:
        current, status = rollout.status()
        if current != router:  # killed and started anew: what it does not know was not watched
            router, begin = current, time.monotonic()
        for counted, one in ((watch.canary, rollout.one), (watch.live, live)):
            if one.candidate in status.releases:
                counted.look(status.releases[one.candidate], current)
        watch.seconds = time.monotonic() - begin
        is_over = watch.seconds >= limits.bake_s and not watch.canary.is_owing and watch.canary.state == "ready"
        if is_told := time.monotonic() - told > TELL_S:
            told = time.monotonic()
        if is_over or is_told:
            _compare(rollout, watch, live, compared)
        checks, said = tuple(watch.judge(limits)), _watched(watch, limits)
        if is_over or not all(check.passed for check in checks):
            return _judged(checks, said, watch)
        if is_told:
            rollout.tell(said)
        rollout.refuse_superseded()
        time.sleep(min(LOOK_S, max(PAUSE, limits.bake_s - watch.seconds)))


def _compare(rollout: Rollout, watch: Watch, live: ReleaseRef, compared: set[str]) -> None:
    """What the canary has logged since the last time: beside its model's answers, and some beside who serves."""
    from tasks.prediction_log import prediction_log

    newest = prediction_log.last_requests(rollout.model, MOST_ROWS, rollout.one.candidate)
    logged = [one for one in newest if one.request not in compared]
    compared.update(one.request for one in logged)
    rows = [row for one in logged for row in one.rows]
    watch.own.compare(rows, [answer for one in logged for answer in one.predictions])
    ask = rollout.ask(live.candidate)
    for one in logged[-PAIRED:]:
        reply = ask(one.rows)
        if reply.status == 200:
            watch.pairs.pair(one.rows, reply.body["predictions"], one.predictions)


def go_live(rollout: Rollout) -> Outcome:
    """All requests for it. Who served before is kept warm, so that going back takes no start.

    Raises:
        Superseded: somebody else is champion now.
        RouterLags: the router has not done it in time; it will, as the file says so.
    """
    rollout.refuse_superseded(now=True)
    now = desired_state.read(rollout.model)
    if now.live is None or now.live.candidate != rollout.one.candidate:
        desired_state.write(rollout.model, now.gone_live(rollout.one))
    deadline = time.monotonic() + rollout.limits.start_s
    while rollout.status()[1].answers != rollout.one.candidate:
        if time.monotonic() > deadline:
            raise RouterLags(
                f"{rollout.one} is ready, but {rollout.router.address} does not let it answer. See var/log/router.log"
            )
        time.sleep(PAUSE)
    now = desired_state.read(rollout.model)
    if now.live and not desired_state.live_is_noted(rollout.model, now.live):
        desired_state.note(rollout.model, now.live, "live")
    beside = f"; {now.previous} is kept warm" if now.previous else ""
    return Outcome(True, f"answers everything{beside}")


def _judged(checks: tuple[Check, ...], said: str, facts: Replayed | Watch) -> Outcome:
    failed = [check for check in checks if not check.passed]
    if failed:
        said = "; ".join(f"{check.name}: {check.reason}" for check in failed)
        return Outcome(False, said, checks, facts, momentary={check.name for check in failed} <= MOMENTARY)
    return Outcome(True, said, checks, facts)


def _watched(watch: Watch, limits: params.Rollout) -> str:
    canary, live = watch.canary, watch.live
    few = "; too little traffic to judge its latency and its moves" if canary.requests < limits.min_requests else ""
    return (
        f"{canary.requests} requests in {watch.seconds:.0f} s, {canary.errors} errors; "
        f"who serves {live.requests}, {live.errors} errors{few}"
    )


def _while_wanted(rollout: Rollout, requests: list[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    for rows in requests:
        rollout.refuse_superseded()
        yield rows


def _is_kept(now: desired_state.DesiredState, one: ReleaseRef) -> bool:
    return any(held and held.candidate == one.candidate for held in (now.live, now.previous, now.challenger))


def _folder(rollout: Rollout) -> Path:
    home = os.environ.get("BENTOML_HOME") or settings.environment()["BENTOML_HOME"]
    return Path(home) / "bentos" / rollout.model / rollout.one.candidate / "src"


def _facts(rollout: Rollout) -> dict[str, Any]:
    return package.release_facts(_folder(rollout))


def _golden(rollout: Rollout) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = files.read_json(_folder(rollout) / "golden.json")
    return rows
