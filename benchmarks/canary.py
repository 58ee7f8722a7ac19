"""Whether a rollout withdraws good releases, and finds bad ones: on the real year of flights, for both models.

A champion learned from the months until spring or summer; challengers learned from later months, other rows, seeds and
hyperparameters, and are as good as the champion on the holdout month, or better. Each is rolled out before the requests
of the month after: replayed, then watched as a canary, by the checks of tasks/release. Predictions are those of the
models on real rows; only the clocks of requests and what the router counts are drawn.

    python -m benchmarks.canary [--good 100] [--bad 6] [--jobs 2] [--page docs/benchmarks/canary.md]
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as Evergreen sets it: OpenMP spins beside other work

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.machine import machine
from tasks.ground import files, params
from tasks.lifecycle import backtest_history
from tasks.modelling import metrics, user_code
from tasks.release import comparison
from tasks.release.gate import gate
from tasks.release.gate.verdict import Check, Moves
from tasks.release.rollout import shadow_replay as replaying
from tasks.release.rollout.canary import LOOK_S, Watch
from tasks.release.rollout.paired_answers import Pairs
from tasks.release.rollout.router_client import Reply
from tasks.release.rollout.router_status import Latency, ReleaseStatus
from tasks.release.rollout.served_answers import OwnAnswers
from tasks.release.rollout.shadow_replay import FALSE_ALARM, Replayed
from tasks.release.rollout.stages import COMPARE_S, TRANSIENT, TRIES
from tasks.runtime import model_file

MODELS = ("flight_delay", "hourly_departures")
HOLDOUTS = (6, 7, 8, 9, 10, 11)
"""Months of 2013 that the gate judges on; requests are those of the month after."""

LEARNED = 8_000
"""Rows that a model learns from, at most."""

EDGES_MS = [round(0.5 * 1.15**i, 4) for i in range(80)]
"""As the router counts latencies."""

Frame = pd.DataFrame
Rng = np.random.Generator


# ── the year, and models of it ────────────────────────────────────────────────────────────────────


@cache
def year(name: str) -> tuple[params.Model, Frame]:
    """A model's section of params.yaml, and its rows of the year."""
    said = params.load()
    return said.model(name), backtest_history.read(name, said, "upstream").rows


def month(name: str, number: int) -> Frame:
    """The rows of a month."""
    _, rows = year(name)
    return rows[rows["time"].dt.month == number].reset_index(drop=True)


@cache
def champion(name: str, holdout: int) -> Any:
    """It learned from the months until four before the holdout's."""
    return _fitted(name, range(1, max(2, holdout - 3)), np.random.default_rng(holdout), {})


def challenger(name: str, holdout: int, rng: Rng) -> Any:
    """It learned from the months just before the holdout, or from all of them; other rows, seed, hyperparameters."""
    first = int(rng.choice([1, max(1, holdout - 4)]))
    rate = float(rng.choice([0.04, 0.06, 0.1]))
    return _fitted(name, range(first, holdout), rng, {"learning_rate": rate, "max_iter": int(rng.choice([60, 100]))})


def _fitted(name: str, months: Sequence[int], rng: Rng, changed: dict[str, Any]) -> Any:
    model, rows = year(name)
    learn = rows[rows["time"].dt.month.isin(list(months))]
    learn = learn.iloc[np.sort(rng.choice(len(learn), min(LEARNED, len(learn))))]  # with repetition: a bootstrap
    said = model.estimator.model_copy(
        update={"params": {**model.estimator.params, **changed}, "seed": int(rng.integers(1000))}
    )
    pipeline = user_code.build_pipeline(name, model.model_copy(update={"estimator": said}))
    pipeline.fit(learn[list(model.features)], learn["label"])
    return pipeline


@dataclass(frozen=True)
class Case:
    """A challenger that the gate promoted over a champion, and the rows that clients ask next."""

    name: str
    champion: Any
    challenger: Any
    moves: Moves
    requests: Frame
    other: Any
    """Another model of the kind."""

    def score(self, pipeline: Any, frame: Frame) -> Frame:
        """What a pipeline says of rows."""
        model, _ = year(self.name)
        said: Frame = model_file.predict(pipeline, frame[list(model.features)], model.task)
        return said


def case(name: str, number: int) -> Case:
    """The challenger with a number: drawn, month after month, until one is as good as the champion on the holdout."""
    rng = np.random.default_rng([MODELS.index(name), number])
    model, _ = year(name)
    for holdout in itertools.islice(itertools.cycle(HOLDOUTS), number, None):
        held, before, after = month(name, holdout), champion(name, holdout), challenger(name, holdout, rng)
        made = Case(name, before, after, Moves(0, 0, 0), month(name, holdout + 1), champion(name, HOLDOUTS[0] - 1))
        old, new = made.score(before, held), made.score(after, held)
        old_loss, new_loss = (metrics.losses(model.gate.loss, held["label"], side).mean() for side in (old, new))
        if new_loss <= old_loss:
            break
    far = gate.distances(model.task, old, new)
    features = {name: feature.model_dump() for name, feature in model.features.items()}
    some = comparison.without_optional(held.iloc[:: -(-len(held) // comparison.MISSING_ROWS)], features)
    missing = gate.distances(model.task, *(made.score(side, some) for side in (before, after)))
    return replace(made, moves=Moves(len(far), float(far.mean()), float(max(far.max(), missing.max()))))


# ── clients ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Traffic:
    """Who asks, and how the machine fares meanwhile."""

    asks: Callable[[Frame, Rng], Frame] = lambda rows, _: rows
    """Which rows of the month, or what becomes of them."""
    rate: float = 100.0
    """Requests a second."""
    refused: float = 0.0
    """Share of the canary's requests that are wrong: of a client whose key is always the canary's."""
    stalls: float = 0.0
    """How often the whole machine stands still for half a second, each second."""
    stopped: bool = False
    """Whether the canary's process stands still for 8 s, the first time that it is watched."""


def _one_client(rows: Frame, rng: Rng) -> Frame:
    """Asks for one airport and a few hours only."""
    hour = int(rng.integers(6, 20))
    chosen = rows[(rows["origin"] == rng.choice(["EWR", "JFK", "LGA"])) & rows["hour"].between(hour, hour + 2)]
    return chosen if len(chosen) else rows


def _no_weather(rows: Frame, _: Rng) -> Frame:
    """The weather is not there."""
    model, _unused = year("flight_delay" if "carrier" in rows else "hourly_departures")
    gone = [name for name, feature in model.features.items() if feature.nullable]
    return rows.assign(**dict.fromkeys(gone, np.nan))


def _health_check(rows: Frame, rng: Rng) -> Frame:
    """Asks the same row again and again."""
    return rows.iloc[np.full(500, int(rng.integers(len(rows))))]


TRAFFIC = {
    "everybody, 100 a second": Traffic(),
    "everybody, 2 a second": Traffic(rate=2),
    "one client: one airport, three hours": Traffic(_one_client),
    "no weather": Traffic(_no_weather),
    "one row, again and again": Traffic(_health_check),
    "a client with wrong requests, always the canary's": Traffic(refused=0.3),
    "a busy machine": Traffic(stalls=0.5),
    "the canary's process stands still for 8 s": Traffic(stopped=True),
}


# ── a release that serves ─────────────────────────────────────────────────────────────────────────

Served = Callable[[Case, Frame], Frame]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a release."""

    served: Served = lambda case, rows: case.score(case.challenger, rows)
    """What it answers."""
    model: Served = lambda case, rows: case.score(case.challenger, rows)
    """What its model says: what it was evaluated as."""
    judged: bool = True
    """Whether the gate promoted it; else a person set the alias."""
    slow: float = 0.0
    """Share of answers that take 200 ms more."""
    fails: float = 0.0
    """Share of requests that it fails on, and the live release does not."""


def _changed(change: Callable[[Frame], Frame]) -> Served:
    return lambda case, rows: case.score(case.challenger, change(rows))


def _swapped(rows: Frame) -> Frame:
    names = rows["origin"].astype(object).replace({"EWR": "JFK", "JFK": "EWR"})
    return rows.assign(origin=names.astype(rows["origin"].dtype))


def _stale(rows: Frame) -> Frame:
    return rows.assign(
        temp=rows["temp"].shift(1, fill_value=60.0), wind_speed=rows["wind_speed"].shift(1, fill_value=5.0)
    )


def _answers(change: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> Served:
    """Other answers: a function of the probability of the second class, or of the value."""

    def served(case: Case, rows: Frame) -> Frame:
        said = case.score(case.challenger, rows)
        if "prediction" in said:
            return said.assign(prediction=change(said["prediction"].to_numpy()))
        p = np.clip(change(said["p_1"].to_numpy()), 0, 1)
        return pd.DataFrame({"p_0": 1 - p, "p_1": p}, index=said.index)

    return served


def _wild_in_new_months(case: Case, rows: Frame) -> Frame:
    """Code of its own that fails at what the holdout does not have; what it is evaluated as says the same."""
    said = case.score(case.challenger, rows)
    return said * 4 + 20 if "prediction" in said else pd.DataFrame({"p_0": 0.01, "p_1": 0.99}, index=said.index)


def _nonsense(case: Case, rows: Frame) -> Frame:
    """As learned from labels that were turned round."""
    said = case.score(case.challenger, rows)
    if "prediction" in said:
        return said.assign(prediction=said["prediction"].max() - said["prediction"])
    return said.rename(columns={"p_0": "p_1", "p_1": "p_0"})[["p_0", "p_1"]]


FAULTS = {
    "two airports swapped in serving": Fault(_changed(_swapped)),
    "temperature in °C in serving": Fault(_changed(lambda rows: rows.assign(temp=(rows["temp"] - 32) / 1.8))),
    "wind in m/s in serving": Fault(_changed(lambda rows: rows.assign(wind_speed=rows["wind_speed"] * 0.447))),
    "missing is taken for 0 in serving": Fault(_changed(lambda rows: rows.fillna(_zeros(rows)))),
    "stale weather in serving": Fault(_changed(_stale)),
    "answers shifted by a hundredth": Fault(_answers(lambda y: y + 0.01)),
    "answers rounded": Fault(_answers(np.round)),
    "answers in half precision": Fault(_answers(lambda y: y.astype(np.float16).astype(np.float64))),
    "classes swapped, or order reversed": Fault(_nonsense),
    "another model's weights": Fault(lambda case, rows: case.score(case.other, rows)),
    "the champion's answers": Fault(lambda case, rows: case.score(case.champion, rows)),
    "wild beyond the holdout, evaluation included": Fault(_wild_in_new_months, _wild_in_new_months),
    "learned nonsense, alias set by hand": Fault(_nonsense, _nonsense, judged=False),
    "5 % of answers 200 ms late": Fault(slow=0.05),
    "fails at 2 % of requests": Fault(fails=0.02),
}


def _zeros(rows: Frame) -> dict[str, float]:
    return dict.fromkeys((name for name in rows.columns if pd.api.types.is_float_dtype(rows[name])), 0.0)


# ── a rollout ─────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Rolled:
    """How a rollout ended."""

    what: str
    name: str
    stage: str = ""
    """Where it was withdrawn."""
    checks: list[str] = field(default_factory=list)
    """By which checks."""


@dataclass
class Simulation:
    """One release on its way, before clients that are drawn."""

    case: Case
    fault: Fault
    traffic: Traffic
    rng: Rng

    def __post_init__(self) -> None:
        self.model, _ = year(self.case.name)
        self.limits = self.model.rollout
        self.expected = self.case.moves if self.fault.judged else None
        self.features = {name: feature.model_dump() for name, feature in self.model.features.items()}
        self.own = self._own()

    def run(self) -> tuple[str, list[str]]:
        """The stage that withdrew it, and by which checks; empty when it went live."""
        for stage, attempt in (("replay", self.replay), ("canary", self.watch)):
            for number in range(TRIES):
                failed = [check.name for check in attempt(number) if not check.passed]
                if not failed or not set(failed) <= TRANSIENT or number == TRIES - 1:
                    break
            if failed:
                return stage, failed
        return "", []

    def replay(self, _: int) -> list[Check]:
        """By the project's own replay, and its judgement."""
        rows, before, after = self._asked(self.limits.replay)
        replayed = Replayed(planned=len(rows), task=self.model.task, features=self.features)
        new, old = iter(after), iter(before)
        replaying.replay(
            replayed,
            ([row] for row in rows),
            lambda _: Reply(200, {"predictions": [next(old)]}, float(self._ms(1, 0.0)[0])),
            lambda _: self._reply(next(new)),
            self.limits,
        )
        self.own.compare(replayed.rows, replayed.answers)
        return [
            *replaying.judge(replayed, self.limits),
            self.own.check(),
            *([replayed.check(self.expected, self.limits, FALSE_ALARM)] if replayed.rows else []),
        ]

    def watch(self, number: int) -> list[Check]:
        """Look after look, as the router would count."""
        checks: list[Check] = []
        watch = Watch(self.own, Pairs(self.model.task, self.features), self.expected)
        sides = (_Side(), _Side())
        is_stopped = self.traffic.stopped and number == 0
        told = 0.0
        for look in range(round(self.limits.bake_s / LOOK_S) + 1):
            watch.seconds = look * LOOK_S
            if look:
                self._requests(*sides, is_stopped=is_stopped and watch.seconds > 5)
            for counted, side in ((watch.canary, sides[0]), (watch.live, sides[1])):
                counted.look(side.status(), 1)
            if look and (watch.seconds - told >= COMPARE_S or watch.seconds >= self.limits.bake_s):
                told = watch.seconds
                self._compare(watch, int(sides[0].answered))
            checks = watch.judge(self.limits)
            if not all(check.passed for check in checks):
                break
        return checks

    def _requests(self, canary: _Side, live: _Side, *, is_stopped: bool) -> None:
        """Half a second of them."""
        number = self.rng.poisson(self.traffic.rate * LOOK_S)
        own = self.rng.binomial(number, self.limits.canary)
        wrong = self.rng.binomial(own, self.traffic.refused)
        failed = self.rng.binomial(own - wrong, self.fault.fails)
        stall = 500.0 if self.rng.random() < self.traffic.stalls * LOOK_S else 0.0
        if is_stopped and own:  # after five seconds the router gives it up, and another process comes
            canary.late += own
            canary.pid += 1
            return
        canary.refused += wrong
        canary.failed += failed
        canary.answer(self._ms(own - wrong - failed, stall, self.fault.slow))
        live.answer(self._ms(number - own, stall))

    def _compare(self, watch: Watch, answered: int) -> None:
        rows, before, after = self._asked(min(answered, 500))
        self.own.compare(rows, after)
        for row, old, new in zip(rows[:50], before, after, strict=False):
            watch.pairs.add_pairs([row], [old], [new])

    def _reply(self, answer: dict[str, Any]) -> Reply:
        if self.rng.random() < self.fault.fails:
            return Reply(500, {"error": "broken"}, 1.0)
        return Reply(200, {"predictions": [answer]}, float(self._ms(1, 0.0, self.fault.slow)[0]))

    def _ms(self, number: int, stall: float, slow: float = 0.0) -> npt.NDArray[np.float64]:
        """Latencies: some milliseconds, now and then ten times as many."""
        ms = self.rng.lognormal(1.0, 0.6, number) * np.where(self.rng.random(number) < 0.01, 10, 1)
        stalled = stall * (self.rng.random(number) < 0.5)
        return np.asarray(ms + stalled + 200 * (self.rng.random(number) < slow), dtype=np.float64)

    def _asked(self, number: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
        """So many requests that clients make: rows, and what both answer."""
        there = self.traffic.asks(self.case.requests, self.rng)
        asked = there.iloc[self.rng.integers(len(there), size=number)].reset_index(drop=True)
        if asked.empty:
            return [], [], []
        rows = asked[list(self.features)].astype(object).where(asked[list(self.features)].notna(), None)
        said = self.case.score(self.case.champion, asked), self.fault.served(self.case, asked)
        return rows.to_dict("records"), _told(said[0]), _told(said[1])

    def _own(self) -> OwnAnswers:
        """Held against what its model says; the release's folder is not written for each challenger."""
        own = OwnAnswers(self.case.name, Path())
        vars(own)["_facts"] = {"features": self.features, "columns": list(self.features)}
        vars(own)["_scorer"] = lambda frame: self.fault.model(self.case, frame)
        return own


@dataclass
class _Side:
    """What the router has counted of a release."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    late: int = 0
    pid: int = 1
    latency: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(EDGES_MS) + 1, dtype=np.int64))

    def answer(self, ms: npt.NDArray[np.float64]) -> None:
        self.answered += len(ms)
        self.latency += np.bincount(np.searchsorted(EDGES_MS, ms), minlength=len(self.latency))

    def status(self) -> ReleaseStatus:
        """As `GET /status` has it."""
        return ReleaseStatus(
            state="ready",
            pids=[self.pid],
            answered=self.answered,
            refused=self.refused,
            errors=self.failed + self.late,
            late=self.late,
            failed_alone=self.failed,
            latency=Latency(edges_ms=EDGES_MS, counts=self.latency.tolist()),
        )


def _told(said: Frame) -> list[dict[str, Any]]:
    """Predictions as a release answers them."""
    if "prediction" in said:
        return said.rename(columns={"q10": "low", "q90": "high"}).to_dict("records")
    return [{"probability": p, "probabilities": {"0": 1 - p, "1": p}} for p in said["p_1"].tolist()]


# ── all of it ─────────────────────────────────────────────────────────────────────────────────────


def rolled(job: tuple[str, int, bool]) -> list[Rolled]:
    """The rollouts of one challenger: as it is before one kind of traffic, by turns; or with each fault."""
    name, number, is_good = job
    made, rng = case(name, number), np.random.default_rng([7, MODELS.index(name), number])
    if is_good:
        what = list(TRAFFIC)[number // len(HOLDOUTS) % len(TRAFFIC)]
        runs = [(what, Fault(), TRAFFIC[what])]
    else:
        runs = [(what, fault, Traffic()) for what, fault in FAULTS.items()]
    return [Rolled(what, name, *Simulation(made, fault, traffic, rng).run()) for what, fault, traffic in runs]


Ends = tuple[list[Rolled], list[Rolled]]
"""Of good challengers, and of spoiled ones."""


def everything(good: int, bad: int, processes: int, tell: Callable[[str], Any] = print) -> Iterator[Ends]:
    """The rollouts of so many good challengers of each model, and of so many that are spoiled; as far as they are."""
    many = ((False, bad), (True, good))
    jobs = [(name, number, is_good) for is_good, count in many for number in range(count) for name in MODELS]
    found: Ends = ([], [])
    begin = time.monotonic()
    for name in MODELS:  # what all workers share is there before they are
        for holdout in (HOLDOUTS[0] - 1, *HOLDOUTS):
            champion(name, holdout)
            tell(f"{time.monotonic() - begin:5.0f} s  champion of {name} before month {holdout}")
    with ProcessPoolExecutor(processes) as workers:
        for at, (job, ends) in enumerate(zip(jobs, workers.map(rolled, jobs), strict=True), 1):
            found[0 if job[2] else 1].extend(ends)
            if at % 10 == 0 or at == len(jobs):
                wrong = sum(bool(end.stage) for end in found[0])
                missed = sum(not end.stage for end in found[1])
                tell(
                    f"{time.monotonic() - begin:5.0f} s  {at} of {len(jobs)} challengers: {wrong} of {len(found[0])} "
                    f"good rollouts withdrawn, {missed} of {len(found[1])} bad ones missed"
                )
                yield found


def page(good: list[Rolled], bad: list[Rolled]) -> str:
    """What came of it."""
    lines = [
        "# The canary: good releases withdrawn, bad ones found",
        "",
        "Written by `make bench-canary`. " + machine(["scikit-learn", "numpy", "scipy"]),
        "",
        f"{len(good)} challengers that are as good as the champion on the holdout month or better",
        "(other months, rows, seeds, hyperparameters), each rolled out before the requests of the month after, by the",
        "checks and numbers of `params.yaml`. Replay and canary count, and what is tried again is tried again.",
        "",
        "## Good challengers",
        "",
        "By kind of traffic, one for each challenger: how many were withdrawn.",
        "",
        "| traffic | " + " | ".join(MODELS) + " | by |",
        "| --- |" + " ---: |" * len(MODELS) + " --- |",
        *_lines(TRAFFIC, good, lambda end: bool(end.stage)),
        "",
        "## Bad ones",
        "",
        "Challengers that were spoiled, before everybody's requests, 100 a second: how many were withdrawn.",
        "",
        "| fault | " + " | ".join(MODELS) + " | by |",
        "| --- |" + " ---: |" * len(MODELS) + " --- |",
        *_lines(FAULTS, bad, lambda end: bool(end.stage)),
        "",
        "The canary answers a tenth of the requests for 20 s. A fault that touches one row in many is found when such",
        "a row is asked. *answers*: it is not what its own model says; *moves*: what the gate did not know, or, where",
        "it never judged, too much; *errors*: what the live release answers; *latency*: slower than it, three times.",
        "",
    ]
    return "\n".join(lines)


def _lines(
    kinds: Sequence[str] | dict[str, Any], ends: list[Rolled], counts: Callable[[Rolled], bool]
) -> Iterator[str]:
    for what in kinds:
        of = [end for end in ends if end.what == what]
        cells = []
        for name in MODELS:
            own = [end for end in of if end.name == name]
            cells.append(f"{sum(map(counts, own))} of {len(own)}")
        by = Counter(f"{end.stage}: {', '.join(end.checks)}" for end in of if end.stage)
        yield f"| {what} | {' | '.join(cells)} | {'; '.join(f'{way} ({n})' for way, n in by.most_common(3))} |"
    total = [f"{sum(map(counts, own))} of {len(own)}" for own in ([e for e in ends if e.name == n] for n in MODELS)]
    yield f"| all | {' | '.join(total)} | |"


def main() -> None:
    """Run it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--good", type=int, default=100, help="good challengers of each model")
    parser.add_argument("--bad", type=int, default=6, help="challengers of each model that are spoiled in every way")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--page", type=Path, default=None)
    given = parser.parse_args()
    for good, bad in everything(given.good, given.bad, given.jobs, partial(print, flush=True)):
        if given.page:  # whoever breaks it off has a page of what was done
            files.write_text(given.page, page(good, bad))
    print(page(good, bad))


if __name__ == "__main__":
    main()
