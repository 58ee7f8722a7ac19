"""What came of releases that changed under load (benchmarks/swaps.py): figures, text, and what was not kept."""

from __future__ import annotations

import json
import statistics
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from benchmarks.machine import machine
from benchmarks.releases import Made
from deployments.tools import load, load_clients
from tasks.ground import files, paths

WITHDRAWN_S, SLOWER = 10, 1.2
"""What was promised: seconds until a bad release has no requests any more; p99 during a swap, times that between."""

LOOK_S = 0.1
"""How often the router looks what should serve: for so long it may not know yet."""


# ── what is found ─────────────────────────────────────────────────────────────────────────────────


@dataclass
class Found:
    """The figures of a trial."""

    seconds: float
    requests: int
    failed: Counter[str]
    in_flight: int
    """Failed, and sent to a router that was killed before it answered: on an open connection."""
    swapping: list[float]
    unbaked: list[float]
    """Of those, while no new release had a share yet, or any more: what starts, is tried and takes over."""
    trying: list[float]
    """While a bad release was tried and withdrawn: what its canary fails on, who serves is asked as well."""
    between: list[float]
    swaps: Counter[str]
    withdrawn: dict[str, list[float]]
    after: int
    """Answers of a withdrawn release, to requests that were due when it had been withdrawn."""
    wrong: int
    unlogged: int
    surprises: list[str]
    careful: int
    """Good releases that were refused, as somebody was killed while they were tried: the gate fails closed."""
    kills: Counter[str]

    def slower(self, than: list[float]) -> float:
        """p99 of these / of those between changes."""
        return load.percentile(than, 99) / load.percentile(self.between, 99) if self.between else 0.0


@dataclass
class Act:
    """One change of the alias, and what came of it. Times are of time.perf_counter."""

    kind: str
    """`new`, `back` (to the one before), or what is wrong with the release."""
    one: Made
    begin: float
    end: float = 0.0
    withdrawn: float | None = None
    """When it got no more requests."""
    baked: tuple[float, float] | None = None
    """From when until when it had a share of them."""
    surprise: str = ""
    """What the flow said last, where a good release does not serve, or a bad one does."""
    runs: int = 0
    killed: Counter[str] = field(default_factory=Counter)


@dataclass
class TrialRecord:
    """A part of the measurement: the load on it, the acts in it, and what was answered."""

    model: str
    expected: dict[str, list[float]]
    """Release → what it is to answer to each request."""
    acts: list[Act] = field(default_factory=list)
    answers: list[load_clients.LoadResult] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    wrong: int = 0
    kills: list[tuple[float, str]] = field(default_factory=list)

    def tell(self, one: load_clients.LoadResult) -> None:
        """Take in an answer: who gave it, and whether it is right."""
        if not one.failed:
            said = orjson.loads(one.body)["predictions"][0]
            self.ids.add(said["id"])
            value = said.get("probability", said["prediction"])
            right = self.expected[str(one.release)][one.request.number]
            self.wrong += abs(value - right) > 1e-9
        self.answers.append(one)


def find(trial: TrialRecord) -> Found:
    """Look through what was answered."""
    baked = [act.baked for act in trial.acts if act.baked]
    swapping, unbaked, trying, between = [], [], [], []
    for one in trial.answers:
        act = next((act for act in trial.acts if one.due <= act.end and one.done >= act.begin), None)
        if act is None:
            between.append(one.ms)
        elif act.one.kind != "good":
            trying.append(one.ms)
        else:
            swapping.append(one.ms)
            if not any(begin <= one.due <= end for begin, end in baked):
                unbaked.append(one.ms)
    gone = {f"{trial.model}:{act.one.candidate}": act.withdrawn for act in trial.acts if act.one.kind != "good"}
    after = [a for a in trial.answers if (at := gone.get(str(a.release))) and a.due > at + 2 * LOOK_S]
    failed = [one for one in trial.answers if one.failed]
    careful = [act for act in trial.acts if act.surprise and act.killed and act.one.kind == "good"]
    routers = [at for at, what in trial.kills if what == "router"]
    in_flight = [one for one in failed if _was_in_flight(one, routers)]
    withdrawn: dict[str, list[float]] = {}
    for act in trial.acts:
        if act.one.kind != "good" and not act.surprise:
            withdrawn.setdefault(act.kind, []).append((act.withdrawn or act.end) - act.begin)
    return Found(
        seconds=trial.answers[-1].done - trial.answers[0].due,
        requests=len(trial.answers),
        failed=Counter(str(one.failed) for one in failed),
        in_flight=len(in_flight),
        swapping=swapping,
        unbaked=unbaked,
        trying=trying,
        between=between,
        swaps=Counter(act.kind for act in trial.acts if act.one.kind == "good" and not act.surprise),
        withdrawn=withdrawn,
        after=len(after),
        wrong=trial.wrong,
        unlogged=len(trial.ids - _logged(trial.model)),
        surprises=[act.surprise for act in trial.acts if act.surprise and act not in careful],
        careful=len(careful),
        kills=Counter(what for _, what in trial.kills),
    )


def _was_in_flight(one: load_clients.LoadResult, kills: list[float]) -> bool:
    """Whether a request was on an open connection to a router that was killed before it answered."""
    return str(one.failed).startswith(load_clients.NO_ANSWER) and any(
        one.due <= at + LOOK_S and at <= one.done for at in kills
    )


def _logged(model: str) -> set[str]:
    """The prediction ids in the log, compacted meanwhile or not."""
    from tasks.prediction_log import prediction_log

    return set(prediction_log.read(model, columns=["id"])["id"].to_pylist())


def at_rest(model: str) -> list[str]:
    """What is wrong with the state when all is done; nothing, if all is well."""
    from tasks.release.registry import champion_lookup

    said = files.read_json(paths.desired_state(model))
    wanted = champion_lookup.champion(model)
    with urllib.request.urlopen(f"{load.address()}/status", timeout=30) as response:
        serves = json.loads(response.read())["models"][model]
    faults = []
    if wanted is None or wanted.candidate != said["live"]["candidate"]:
        faults.append(f"the registry names {wanted}, {said['live']} is to serve")
    if serves["answers"] != said["live"]["candidate"]:
        faults.append(f"{serves['answers']} answers, {said['live']['candidate']} is to serve")
    if said["canary"] or any(one["role"] == "challenger" for one in said["beside"]):
        faults.append(f"somebody is still being tried: {said}")
    if paths.failed_rollout(model).exists():
        faults.append("a withdrawal was begun and not ended")
    return faults


# ── what is told ──────────────────────────────────────────────────────────────────────────────────


def told(found: Found, rate: float) -> str:
    """The figures as text."""
    failed = ", ".join(f"{kind}: {number}" for kind, number in found.failed.items())
    kinds = ", ".join(f"{number} {kind}" for kind, number in found.swaps.items())
    bad = sum(map(len, found.withdrawn.values()))
    lines = [
        f"{found.requests:,} requests in {found.seconds:.0f} s, {rate:g} a second, half on new connections",
        f"{sum(found.failed.values())} failed" + (f" ({failed})" if failed else ""),
    ]
    if found.kills:
        lines[-1] += f"; {found.in_flight} of them were in flight on connections to a router that was killed"
        lines.append(f"{found.careful} good releases were refused, as somebody was killed while they were tried")
        lines.append("killed: " + ", ".join(f"{number} × {what}" for what, number in found.kills.items()))
    slower = (found.slower(found.swapping), found.slower(found.trying))
    lines += [
        f"{sum(found.swaps.values())} swaps ({kinds}), {bad} bad releases withdrawn",
        f"while one is swapped      {load.latencies(found.swapping)}   of {len(found.swapping):,} requests",
        f"  of it, without a share  {load.latencies(found.unbaked)}   of {len(found.unbaked):,} requests",
        f"while a bad one is tried  {load.latencies(found.trying)}   of {len(found.trying):,} requests",
        f"between                   {load.latencies(found.between)}   of {len(found.between):,} requests",
        "p99: {:.2f} × while one is swapped, {:.2f} × while a bad one is tried".format(*slower),
    ]
    for kind, took in found.withdrawn.items():
        figures = f"{statistics.median(took):.1f} s after its alias ({max(took):.1f} s at most)"
        lines.append(f"{kind:<33} {len(took)} × withdrawn {figures}")
    lines += [
        f"{found.after} answers of a withdrawn release after that",
        f"{found.wrong} answers that are not what the release was evaluated to",
        f"{found.unlogged} answered predictions that are not in the log",
    ]
    return "\n".join(lines)


def faults(found: Found, rest: list[str], is_timed: bool) -> list[str]:
    """What was promised and not kept."""
    lost = sum(found.failed.values()) - found.in_flight
    late = [took for times in found.withdrawn.values() for took in times if took > WITHDRAWN_S]
    ratio = found.slower(found.swapping)
    slower = f"p99 while one release is swapped for another is {ratio:.2f} × the one between, {SLOWER:g} is allowed"
    broken = [
        (lost, f"{lost} requests failed"),
        (is_timed and ratio > SLOWER, slower),
        (is_timed and late, f"{len(late)} bad releases took longer than {WITHDRAWN_S} s to be withdrawn"),
        (found.after, f"{found.after} answers of withdrawn releases"),
        (found.wrong, f"{found.wrong} wrong answers"),
        (found.unlogged, f"{found.unlogged} answers that were not logged"),
        (found.surprises, f"not as it should end: {'; '.join(found.surprises)}"),
    ]
    return [said for is_so, said in broken if is_so] + rest


def page(parts: dict[str, str], missed: list[str], limits: dict[str, Any]) -> str:
    """docs/benchmarks/swaps.md."""
    lines = ["# Releases that change under load", ""]
    lines += ["Made by `make bench-swaps`; what is done is told in `benchmarks/swaps.py`.", ""]
    lines += [machine(("prefect", "mlflow", "uvicorn", "scikit-learn")), ""]
    lines += [f"Rollouts with {', '.join(f'{name} {value}' for name, value in limits.items())}.", ""]
    for title, text in parts.items():
        lines += [f"## {title}", "", "```", text, "```", ""]
    lines += ["Everything that was promised was kept." if not missed else "Not kept: " + "; ".join(missed) + ".", ""]
    return "\n".join(lines)
