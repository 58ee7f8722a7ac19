"""Stages of a rollout: each looks at what is, and does what is missing until its release answers all requests.

    fetch             its Bento is on this machine, whole, and what its name says
    warm_up           the router keeps it ready beside the live release, before a deadline
    ask_golden_rows   it answers the rows that it carries along as it was evaluated
    replay            it answers logged requests: as its model does, as fast as the live release, as the gate expected
    bake              it answers a share of the requests for a while, watched
    promote           it answers all requests; the release that was live is kept warm

A stage gives a `StageResult`; flows/rollout.py withdraws a release that fails one. What may be transient (a process
that died or stood still, slowness) is tried again first. What the world does wrong (no router, no registry) raises and
is held against no release; the next run begins where this one ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Literal

from tasks.ground import files, params
from tasks.ground.errors import DataMissing, ModelFileRefused, ReleaseDiffers, WorldError
from tasks.release import bento_store
from tasks.release.gate.verdict import Check, Moves
from tasks.release.package import package
from tasks.release.policy import promotion
from tasks.release.registry import desired_state
from tasks.release.registry.champion_lookup import champion as champion_in_registry
from tasks.release.registry.desired_state import DesiredState, ReleaseRef
from tasks.release.rollout import shadow_replay
from tasks.release.rollout.canary import LOOK_S, Watch
from tasks.release.rollout.paired_answers import Pairs
from tasks.release.rollout.router_client import PAUSE, Reply, RouterClient, fault, last_line
from tasks.release.rollout.router_status import LATE, ModelStatus, ReleaseStatus
from tasks.release.rollout.served_answers import MOST_ROWS, OwnAnswers
from tasks.release.rollout.shadow_replay import FALSE_ALARM, Replayed, Rows
from tasks.runtime import feature_types

SUPERSEDED_S = 2.0
"""Seconds between two looks at the registry's champion: whoever sets another one need not wait for the end."""

FIRST_START_FACTOR = 5
"""So many times longer may the first release of a model take to start: no other one answers meanwhile, and a router
that has just begun imports everything."""

ROUTER_BEGIN_S = 60.0
"""Seconds that the router may take until it starts a release: that is not the release's fault."""

COMPARE_S = 5.0
"""Seconds after which a watch compares answers, and logs how it goes."""

TRIES = 3
"""Tries in all of a stage whose failure may be transient: a process that stood still or was killed, a busy machine."""

RETRY_PAUSE_S = 10.0
"""Seconds before another try, without requests for the release."""

TRANSIENT = {"runs", "latency median", "latency p99"}
"""Checks that measure a process and its machine, and not what the release answers."""

PAIRED_REQUESTS = 50
"""Requests of a canary that the live release is asked as well, each time answers are compared."""

Route = Literal["first", "new", "again", "back"]
"""`first`: there is no live release to compare it with. `back`: it was live before and is warm. `again`: it was live
before and has to be started. `new`: all stages."""


class Superseded(Exception):
    """Another release is champion now: this rollout has no purpose any more."""


class RouterLags(WorldError):
    """The router answers, but does not do what var/serving says."""


@dataclass(frozen=True)
class StageResult:
    """The end of a stage. `passed` is None where it had nothing to do, or nothing to judge by."""

    passed: bool | None
    message: str
    checks: tuple[Check, ...] = ()
    evidence: Replayed | Watch | None = None
    transient: bool = False
    """It failed, but perhaps not by the release's fault."""


@dataclass
class ReleaseRollout:
    """The rollout of one release."""

    model: str
    release: ReleaseRef
    limits: params.Rollout
    router: RouterClient
    log: Callable[[str], object] = print
    _confirmed: float = field(default=float("-inf"), repr=False)

    @property
    def tag(self) -> str:
        """The release's name."""
        return f"{self.model}:{self.release.candidate}"

    @property
    def state(self) -> DesiredState:
        """What should serve; to set it is to write it."""
        return desired_state.read(self.model)

    @state.setter
    def state(self, state: DesiredState) -> None:
        desired_state.write(self.model, state)

    @property
    def live(self) -> ReleaseRef:
        """The live release; to be asked only where there is one."""
        live = self.state.live
        assert live is not None, "the first release has none to be compared with"
        return live

    @cached_property
    def expected(self) -> Moves | None:
        """How far the gate knew that answers would move from the live release to this one; None: it never judged."""
        return expected_moves(self.model, self.release.candidate, self.live.candidate)

    @property
    def folder(self) -> Path:
        """The release's files."""
        return bento_store.release_folder(self.model, self.release.candidate)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the release says of itself."""
        return package.release_facts(self.folder)

    @cached_property
    def golden(self) -> Rows:
        """Rows that it carries along, with what they were evaluated to."""
        rows: Rows = files.read_json(self.folder / "golden.json")
        return rows

    def status(self) -> tuple[int, ModelStatus]:
        """The router's process number, and what it does for the model."""
        return self.router.status(self.model)

    def asker(self, candidate: str) -> Callable[[Rows], Reply]:
        """Asks one release; again where its process was ended meanwhile, as the router does in production."""
        before = self._processes(candidate)

        def ask(rows: Rows) -> Reply:
            nonlocal before
            reply = self.router.predict(self.model, candidate, rows)
            if reply.status < 500 or before == (now := self._processes(candidate)):
                return reply
            self.await_status(lambda status: status.is_ready(candidate))
            before = now
            return self.router.predict(self.model, candidate, rows)

        return ask

    def _processes(self, candidate: str) -> tuple[int, list[int] | None]:
        router, status = self.status()
        release = status.releases.get(candidate)
        return router, release.pids if release else None

    def await_status(self, is_reached: Callable[[ModelStatus], bool]) -> bool:
        """Wait until the router's status is as wanted; gives whether it was in time."""
        deadline = time.monotonic() + self.limits.start_s
        while not is_reached(self.status()[1]):
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE)
        return True

    def refuse_superseded(self, now: bool = False) -> None:
        """Raise Superseded where it is champion no more; the registry is asked from time to time, or `now`."""
        if now or time.monotonic() - self._confirmed > SUPERSEDED_S:
            self._confirmed = time.monotonic()
            if put_back := _put_back(self.model):
                raise Superseded(put_back)
            champion = champion_in_registry(self.model)
            if champion is None or champion.candidate != self.release.candidate:
                raise Superseded(f"{champion or 'no version'} is champion now")


Stage = Callable[[ReleaseRollout], StageResult]


def _put_back(model: str) -> str | None:
    """What was done where the policy does not let the champion serve; MLflow is imported only where there is one."""
    if not promotion.path().exists():
        return None
    from tasks.release.registry import alias_repair

    return alias_repair.put_back(model)


def choose_route(model: str, release: ReleaseRef) -> tuple[Route, str]:
    """Which route a release takes through the stages, and why."""
    state = desired_state.read(model)
    if state.live is None:
        return "first", "it is the first, so there is no release to compare it with"
    if state.previous and state.previous.candidate == release.candidate:
        return "back", "it was live before, and was kept warm"
    if desired_state.has_served(model, release.candidate):
        return "again", "it was live before: production has asked it already"
    return "new", ""


def expected_moves(model: str, candidate: str, live: str) -> Moves | None:
    """How far answers are to move, by the verdict that promoted the one over the other; None where there is none.

    Where releases between the two were promoted and never went live, by the sum of their verdicts.
    """
    from tasks.release.registry import verdict_records

    expected, passed = None, set[str]()
    while candidate != live:
        passed.add(candidate)
        verdicts = verdict_records.of_candidate(model, candidate)
        usable = [v for v in verdicts if v.promoted and v.moves and v.champion not in passed]
        verdict = next((v for v in usable if v.champion == live), usable[-1] if usable else None)
        if verdict is None or verdict.moves is None or verdict.champion is None:
            return None
        expected = verdict.moves + expected if expected else verdict.moves
        candidate = verdict.champion
    return expected


def _retried(attempt: Stage) -> Stage:
    """Repeat a stage whose failure may be transient, before it is held against the release."""

    @wraps(attempt)
    def stage(rollout: ReleaseRollout) -> StageResult:
        first = ""
        for number in range(1, TRIES + 1):
            result = attempt(rollout)
            if not result.transient:
                return replace(result, message=f"{result.message}; tried again, as {first}") if first else result
            first = first or result.message
            if number < TRIES:
                rollout.log(f"{result.message}. That may be transient: it is tried again in {RETRY_PAUSE_S:g} s")
                deadline = time.monotonic() + RETRY_PAUSE_S
                while time.monotonic() < deadline:
                    rollout.refuse_superseded()
                    time.sleep(PAUSE)
        return replace(result, message=f"{result.message} (tried {TRIES} times)")

    return stage


# ── the stages ────────────────────────────────────────────────────────────────────────────────────


def fetch(rollout: ReleaseRollout) -> StageResult:
    """Its Bento is in the store, with the hash that is its name; brought from the registry where it is not.

    Raises:
        Superseded: another release is champion now, or the promotion policy does not let this one serve.
    """
    if put_back := _put_back(rollout.model):
        raise Superseded(put_back)
    try:
        if not bento_store.ensure(rollout.model, rollout.release.candidate):
            return StageResult(None, f"the Bento {rollout.tag} is here, and its hash is its name")
    except (DataMissing, ModelFileRefused) as error:
        return StageResult(False, str(error))
    return StageResult(True, "fetched from the registry, its hash checked, its Bento made")


@_retried
def warm_up(rollout: ReleaseRollout) -> StageResult:
    """It is ready beside the live release; given up as soon as it says why it cannot start, or at the deadline."""
    state, candidate = rollout.state, rollout.release.candidate
    if candidate not in {release.candidate for release in state.releases}:
        rollout.state = state.with_canary(rollout.release)
    elif rollout.status()[1].is_ready(candidate):
        return StageResult(None, "it is warm")
    deadline = _StartDeadline(rollout.limits.start_s * (1 if state.live else FIRST_START_FACTOR))
    while True:
        router, status = rollout.status()
        release = status.releases.get(candidate)
        if release and release.state == "ready":
            return StageResult(True, f"ready after {release.startup_s or 0:.1f} s")
        if why := fault(release):
            return StageResult(False, f"it does not start: {why}")
        if deadline.is_over(router, release):
            break
        rollout.refuse_superseded()
        time.sleep(PAUSE)
    if release is None or release.starting_s is None:
        raise RouterLags(f"{rollout.router.address} has not begun with {rollout.release}. See var/log/router.log")
    rollout.state = rollout.state.without_canary()  # the next try starts it anew
    about = f": {last_line(release.why)}" if release.why else ""
    return StageResult(False, f"it is not ready {deadline.seconds:g} s after it was started{about}", transient=True)


@dataclass
class _StartDeadline:
    """Deadline of a start; it begins anew with another router, and while this one has not started the release yet."""

    seconds: float
    router: int | None = None
    begin: float = 0.0
    asked: float = field(default_factory=time.monotonic)

    def is_over(self, router: int, release: ReleaseStatus | None) -> bool:
        now = time.monotonic()
        is_queued = release is not None and release.starting_s is None
        if router != self.router or (is_queued and now - self.asked < ROUTER_BEGIN_S):
            self.router, self.begin = router, now
        return now - self.begin > self.seconds


@_retried
def ask_golden_rows(rollout: ReleaseRollout) -> StageResult:
    """It answers its golden rows exactly as it was evaluated: all of them together, and one alone."""
    import pandas as pd

    rows, ask = rollout.golden, rollout.asker(rollout.release.candidate)
    evaluated = pd.DataFrame([row["predicted"] for row in rows], index=[row["id"] for row in rows])
    for some in (slice(0, len(rows)), slice(0, 1)):
        reply = ask([row["row"] for row in rows[some]])
        if reply.status >= 500:
            message = f"it does not answer its golden rows: {reply.problem}"
            return StageResult(False, message, transient=reply.status in LATE)
        body = reply.body if reply.status == 200 else {"detail": [], **reply.body}
        answer = {"status": reply.status, "body": body}
        try:
            package.refuse_difference(rollout.tag, evaluated.iloc[some], answer, rollout.facts)
        except ReleaseDiffers as error:
            return StageResult(False, str(error))
        if body["release"] != rollout.tag:
            return StageResult(False, f"the release that answers says it is {body['release']}")
    return StageResult(True, f"{len(rows)} golden rows answered exactly as evaluated")


@_retried
def replay(rollout: ReleaseRollout) -> StageResult:
    """The newest logged requests, or its golden rows where there are none, asked of it and of the live release."""
    from tasks.prediction_log import prediction_log

    limits, facts = rollout.limits, rollout.facts
    newest = prediction_log.last_requests(rollout.model, limits.replay)
    logged = [request.rows for request in newest if _is_whole(request.rows, rollout)]
    requests = logged or [[row["row"]] for row in rollout.golden]
    why = "the log keeps hashes of texts only" if newest else "no request was logged yet"
    source = "logged requests" if logged else f"golden rows, as {why},"
    replayed = Replayed(planned=len(requests), task=facts["task"], features=facts["features"])
    ask_live, ask = rollout.asker(rollout.live.candidate), rollout.asker(rollout.release.candidate)
    shadow_replay.replay(replayed, _until_superseded(rollout, requests), ask_live, ask, limits)
    own = OwnAnswers(rollout.model, rollout.folder)
    own.compare(replayed.rows, replayed.answers)
    checks = [*shadow_replay.judge(replayed, limits), own.check()]
    if replayed.rows:
        checks.append(replayed.check(rollout.expected, limits, FALSE_ALARM))
    stopped = f"; stopped, as {replayed.stopped}" if replayed.stopped else ""
    return _judged(checks, f"{replayed.requests} {source} replayed through both{stopped}", replayed)


def _is_whole(rows: Rows, rollout: ReleaseRollout) -> bool:
    return all(feature_types.is_whole(row, rollout.facts["features"]) for row in rows)


def _until_superseded(rollout: ReleaseRollout, requests: list[Rows]) -> Iterator[Rows]:
    for rows in requests:
        rollout.refuse_superseded()
        yield rows


@_retried
def bake(rollout: ReleaseRollout) -> StageResult:
    """A share of the requests for a while, watched twice a second."""
    if rollout.limits.bake_s == 0:
        return StageResult(None, "no canary: bake_s is 0")
    rollout.await_status(lambda status: status.is_ready(rollout.release.candidate))
    rollout.state = rollout.state.with_share(rollout.limits.canary)
    result = None
    try:
        result = _watch(rollout)
    finally:
        if result is None or result.transient:  # it is not watched any more
            rollout.state = rollout.state.with_share(None)
    return result


def _watch(rollout: ReleaseRollout) -> StageResult:
    limits, live = rollout.limits, rollout.live
    facts, own = rollout.facts, OwnAnswers(rollout.model, rollout.folder)
    pairs = Pairs(facts["task"], facts["features"], package.tolerance(facts))
    watch = Watch(own, pairs, rollout.expected)
    compared: set[str] = set()
    begin = last_compared = time.monotonic()
    watched_router = None
    while True:
        router, status = rollout.status()
        if router != watched_router:  # killed and started anew: what it does not know was not watched
            watched_router, begin = router, time.monotonic()
        for counters, release in ((watch.canary, rollout.release), (watch.live, live)):
            if release.candidate in status.releases:
                counters.look(status.releases[release.candidate], router)
        watch.seconds = time.monotonic() - begin
        is_over = watch.seconds >= limits.bake_s and not watch.canary.is_owing and watch.canary.state == "ready"
        is_due = time.monotonic() - last_compared > COMPARE_S
        if is_over or is_due:
            last_compared = time.monotonic()
            _compare(rollout, watch, live, compared)
        checks, message = watch.judge(limits), watch.summary(limits)
        if is_over or not all(check.passed for check in checks):
            return _judged(checks, message, watch)
        if is_due:
            rollout.log(message)
        rollout.refuse_superseded()
        time.sleep(min(LOOK_S, max(PAUSE, limits.bake_s - watch.seconds)))


def _compare(rollout: ReleaseRollout, watch: Watch, live: ReleaseRef, compared: set[str]) -> None:
    """What the canary has logged since the last time: beside its model's answers, and some beside the live release."""
    from tasks.prediction_log import prediction_log

    newest = prediction_log.last_requests(rollout.model, MOST_ROWS, rollout.release.candidate)
    logged = [request for request in newest if request.request not in compared]
    compared.update(request.request for request in logged)
    logged = [request for request in logged if _is_whole(request.rows, rollout)]
    rows = [row for request in logged for row in request.rows]
    watch.own.compare(rows, [answer for request in logged for answer in request.predictions])
    ask = rollout.asker(live.candidate)
    for request in logged[-PAIRED_REQUESTS:]:
        reply = ask(request.rows)
        if reply.status == 200:
            watch.pairs.add_pairs(request.rows, reply.body["predictions"], request.predictions)


def promote(rollout: ReleaseRollout) -> StageResult:
    """All requests for it. The release that was live is kept warm, so that going back takes no start.

    Raises:
        Superseded: another release is champion now.
        RouterLags: the router has not done it in time; it will, as the file says so.
    """
    rollout.refuse_superseded(now=True)
    candidate, state = rollout.release.candidate, rollout.state
    if state.live is None or state.live.candidate != candidate:
        rollout.state = state.gone_live(rollout.release)
    if not rollout.await_status(lambda status: status.answers == candidate):
        raise RouterLags(
            f"{rollout.release} is ready, but {rollout.router.address} does not let it answer. See var/log/router.log"
        )
    desired_state.note_live(rollout.model, rollout.live)
    previous = rollout.state.previous
    return StageResult(True, f"answers all requests{f'; {previous} is kept warm' if previous else ''}")


def _judged(checks: list[Check], message: str, evidence: Replayed | Watch) -> StageResult:
    failed = [check for check in checks if not check.passed]
    if not failed:
        return StageResult(True, message, tuple(checks), evidence)
    message = "; ".join(f"{check.name}: {check.reason}" for check in failed)
    return StageResult(False, message, tuple(checks), evidence, transient={c.name for c in failed} <= TRANSIENT)
