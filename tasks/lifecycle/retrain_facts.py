"""Is a training due? What the retrain policy asks about, gathered from the rows, the champion and the monitor.

The policy decides (tasks/monitoring/retrain_policy.py); here its facts come together, and what it said is kept:

    var/decisions/<model>.jsonl        every decision with the facts it was made from, «no» as well
    var/memo/due/<model>.json          a training that a person asked for, or that an edit asks for, until it has ended

A decision is a function of the data, not of the clock: with equal facts it is equal, so it is asked again for nothing
but a change of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, ledger, outcome_cache, params, paths, settings
from tasks.monitoring import retrain_policy
from tasks.release.registry import champion_lookup

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from tasks.modelling.daily_summaries import ColumnLayout

Arrived = Mapping[str, Mapping[str, Any]]
"""Partition → sha256, rows, from, until (tasks/modelling/rows.py)."""


@dataclass(frozen=True)
class Override:
    """What needs no policy: somebody asks, or something was edited. It holds until the training has ended."""

    asked_by: str = ""
    edited: str = ""


def override(model: str, asked_by: str, edited: str) -> Override:
    """What is certain now, with what a killed run knew: what it made meanwhile no longer looks edited."""
    note = _note(model)
    before = files.read_state(note, Override(), lambda said: Override(**said))
    now = Override(asked_by or before.asked_by, edited or before.edited)
    if now not in (before, Override()):
        files.write_json(note, {"asked_by": now.asked_by, "edited": now.edited})
    return now


def is_requested(model: str, if_due: bool) -> bool:
    """Whether a person asks: now, or of a run that was killed before its end."""
    return not if_due or bool(files.read_state(_note(model), Override(), lambda said: Override(**said)).asked_by)


def hold(model: str, why: str, run: str) -> None:
    """Keep that nothing was asked of the policy, and why; once for each reason. What was edited is not asked for."""
    clear_override(model)
    if (before := last(model)) is None or before["why"] != why:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        said = {"id": files.digest(why)[:16], "retrain": False, "why": why, "reasons": [], "state": {}, "policy": {}}
        ledger.append(_book(model), {"at": at, "run": run, **said})


def clear_override(model: str) -> None:
    """The training that was due has ended."""
    _note(model).unlink(missing_ok=True)


def decide(model: str, known: Override, run: str) -> retrain_policy.Decision:
    """Ask the policy, on the rows as `prepare` has just laid them down, and keep what it said.

    Args:
        model: a name below `models` in params.yaml.
        known: what is certain.
        run: where to look at the flow run that asks.
    """
    said = params.load().model(model)
    decision = retrain_policy.decide(_state(model, said, known), said.retrain)
    if (before := last(model)) is None or before["id"] != decision.id:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        ledger.append(_book(model), {"at": at, "run": run, **decision.to_dict()})
    return decision


def last(model: str) -> dict[str, Any] | None:
    """The newest decision, as it was written down."""
    lines = ledger.lines(_book(model))
    return lines[-1] if lines else None


def refused(model: str) -> str | None:
    """Why a training was not due when it was last asked for; None where something that was asked about has changed."""
    why: str | None = outcome_cache.recall(paths.refused_training(model), lambda: facts_digest(model))
    return why


def refuse(model: str, why: str, on: str) -> None:
    """Keep that a training is not due, given these `facts`: who is woken next need not gather them to find it out."""
    outcome_cache.keep(paths.refused_training(model), on, why)


def facts_digest(model: str) -> str:
    """The identity of what a decision depends on. What was edited is not in it."""
    report, wanted = _report(model), champion_lookup.champion(model)
    on = {path: files.sha256(settings.ROOT / path) for path in ("data.dvc", "dvc.lock", "params.yaml")}
    said = {"alarms": report.get("alarms"), "quality": report.get("quality")}
    return files.digest({**on, **said, "champion": wanted.candidate if wanted else None})


def _book(model: str) -> Path:
    return paths.decisions(model)


def _note(model: str) -> Path:
    return paths.retrain_outcome(model)


# ── the facts ─────────────────────────────────────────────────────────────────────────────────────


def _state(model: str, said: params.Model, known: Override) -> retrain_policy.PolicyState:
    from tasks.data import versions
    from tasks.modelling import rows

    build = settings.BUILD / model
    there = rows.arrived(build)
    folder = _champion(model)
    # DVC removes what a stage is about to make: killed then, the last training that is known is the champion's
    last_training = _training(build / "model") or (_training(folder.training) if folder else {})
    before: Arrived = last_training.get("arrived", {})
    for name, one in there.items():
        _fingerprints(one["sha256"], build / "rows" / f"{name}.parquet")  # while its bytes are here
    new = _new(there, before)
    state = retrain_policy.PolicyState(
        model=model,
        now=_until(there),
        data_version=versions.current(),
        trained_at=_until(before) if before else None,
        new_rows=_other_rows(new, before),
        new_partitions=len(new),
        edited=known.edited or _lost(there, before, new),
        asked_by=known.asked_by,
    )
    return _with_champion(state, said, folder, there) if folder else state


def _with_champion(
    state: retrain_policy.PolicyState, said: params.Model, folder: _Champion, there: Arrived
) -> retrain_policy.PolicyState:
    training = _training(folder.training)
    learned_until, new = _learned_until(training), _new(there, training.get("arrived", {}))
    report = _report(state.model)
    of_live = (report.get("release") or {}).get("candidate") == folder.candidate
    return replace(
        state,
        learned_until=learned_until,
        learned_rows=training["rows"],
        newer_rows=_other_rows(new, training.get("arrived", {})),
        revised_rows=_revised_rows(training, there),
        newer_partitions=sum(1 for one in there.values() if datetime.fromisoformat(one["from"]) > learned_until),
        alarms=(*_moved(state.model, said, folder.training, list(new)), *(_alarms(report) if of_live else ())),
        promised=_promised(said, folder.evaluation),
        measured=_measured(state.model, said, folder.candidate),
        estimated=_estimated(report, folder.candidate, said.gate.loss),
    )


def _lost(there: Arrived, before: Arrived, new: Arrived) -> str:
    """What, without any new row, asks for a training."""
    if gone := sorted(before.keys() - there.keys()):
        return f"{', '.join(gone)} left the data version: it"
    return "" if new else "what was made of the same rows is not as it was: it"


def _training(folder: Path) -> dict[str, Any]:
    return files.read_state(folder / "training.json", dict[str, Any]())


def _until(arrived: Arrived) -> datetime:
    """The newest row's time. What nobody can have seen yet says nothing: a year mistyped once would stop this clock."""
    ends = [datetime.fromisoformat(one["until"]) for one in arrived.values()]
    return max((end for end in ends if not _is_to_come(end)), default=max(ends))


def _learned_until(training: dict[str, Any]) -> datetime:
    said = datetime.fromisoformat(training["until"])
    return _until(training["arrived"]) if training.get("arrived") and _is_to_come(said) else said


def _is_to_come(moment: datetime) -> bool:
    return moment.replace(tzinfo=None) > datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)


def _new(there: Arrived, before: Arrived) -> Arrived:
    """What was not there before, or has changed since."""
    return {name: one for name, one in there.items() if before.get(name, {}).get("sha256") != one["sha256"]}


def _other_rows(new: Arrived, before: Arrived) -> int:
    """How many rows came or, in a partition that was there before, are other than they were."""
    return sum(_changed(before.get(name), one) for name, one in new.items())


def _revised_rows(training: Mapping[str, Any], there: Arrived) -> int:
    """How many rows are other now of the partitions that were learned from."""
    arrived: Arrived = training.get("arrived", {})
    learned = [name for name in training.get("partitions", []) if name in arrived]
    return sum(_changed(arrived[name], there.get(name)) for name in learned)


def _changed(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> int:
    """How many rows of a partition were altered, added or removed; all of them where what it was is not known here."""
    if before is None or now is None:
        return int((before or now or {"rows": 0})["rows"])
    if before["sha256"] == now["sha256"]:
        return 0
    known = [_fingerprints(one["sha256"]) for one in (before, now)]
    if known[0] is None or known[1] is None:
        return max(int(before["rows"]), int(now["rows"]))
    return other_rows(known[0], known[1])


def other_rows(before: npt.NDArray[np.uint64], now: npt.NDArray[np.uint64]) -> int:
    """How many rows were altered, added or removed; of each a hash of its id and one of all of it is known."""
    import numpy as np

    _, was, became = np.intersect1d(before[:, 0], now[:, 0], assume_unique=True, return_indices=True)
    altered = int((before[was, 1] != now[became, 1]).sum())
    return altered + len(before) - len(was) + len(now) - len(became)


def _fingerprints(sha256: str, path: Path | None = None) -> npt.NDArray[np.uint64] | None:
    """The fingerprints of the rows of a partition, by the hash of its file; None: not known, and not here either."""
    import numpy as np

    try:
        kept = files.memo("fingerprints", {"rows": sha256}, ".npy", partial(_write_fingerprints, path))
    except FileNotFoundError:
        return None
    fingerprints: npt.NDArray[np.uint64] = np.load(kept)
    return fingerprints


def _write_fingerprints(path: Path | None, target: Path) -> None:
    import numpy as np
    import pandas as pd

    from tasks.modelling import rows

    if path is None:
        raise FileNotFoundError("the rows that were learned from, of which nobody kept fingerprints")
    frame = pd.read_parquet(path)
    whole = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    with target.open("wb") as stream:
        np.save(stream, np.column_stack([rows.row_hashes(frame["id"]), whole]))


@dataclass(frozen=True)
class _Champion:
    """Where the champion's training and evaluation lie."""

    candidate: str
    training: Path
    evaluation: Path


def _champion(model: str) -> _Champion | None:
    wanted = champion_lookup.champion(model)
    if wanted is None:
        return None
    build = settings.BUILD / model
    name = build / "release" / "candidate.json"
    whole = name.exists() and (build / "model").exists() and (build / "evaluation").exists()
    if whole and files.read_json(name)["candidate"] == wanted.candidate:
        return _Champion(wanted.candidate, build / "model", build / "evaluation")
    folder = paths.champions() / wanted.candidate
    if not files.is_sealed(folder):
        from tasks.release.registry import registry

        found = registry.champion(model)
        assert found is not None  # who is asked for above
        folder = registry.fetch_cached(model, found)
    return _Champion(wanted.candidate, folder / "training", folder / "evaluation")


def _moved(model: str, said: params.Model, training: Path, partitions: list[str]) -> Iterator[retrain_policy.OpenAlarm]:
    """What drifts in the rows that came since the champion was trained, against those that it learned from."""
    from tasks.modelling import daily_summaries
    from tasks.monitoring.drift import drift

    reference = training / "reference.parquet"
    if not partitions or not reference.exists():
        return
    wanted = daily_summaries.columns(files.read_json(training / "profile.json"), said.features)
    wanted = {name: column for name, column in wanted.items() if _is_as_learned(column, said)}
    came = []
    for name in sorted(partitions):
        path = settings.BUILD / model / "rows" / f"{name}.parquet"
        key = {"rows": files.sha256(path), "layout": {column: one.layout for column, one in wanted.items()}}
        memo = files.memo("days", key, ".parquet", partial(_summarise, path, wanted))
        came.append(daily_summaries.from_bytes(memo.read_bytes(), wanted))
    found = drift.detect(
        wanted, daily_summaries.from_bytes(reference.read_bytes(), wanted), daily_summaries.merge(came)
    )
    yield from map(retrain_policy.OpenAlarm.of, found.open)


def _is_as_learned(column: ColumnLayout, said: params.Model) -> bool:
    """Whether a column is still of the type that the champion knows; one that is not cannot be held against it."""
    if column.name not in said.features:
        return column.role == "label" and (column.type == "category" or said.task == "regression")
    numbers = {"number", "integer"}
    now = said.features[column.name].type
    return column.type in ("new", now) or {column.type, now} == numbers


def _summarise(rows: Path, wanted: Mapping[str, Any], target: Path) -> None:
    import pandas as pd

    from tasks.modelling import daily_summaries

    target.write_bytes(daily_summaries.to_bytes(daily_summaries.summarise(pd.read_parquet(rows), wanted)))


def _promised(said: params.Model, evaluation: Path) -> retrain_policy.MeanLoss | None:
    """What the champion's evaluation promised of the loss."""
    import pandas as pd

    from tasks.modelling import metrics

    path = evaluation / "predictions.parquet"
    if not path.exists():
        return None
    holdout: pd.DataFrame = pd.read_parquet(path)
    try:
        losses = metrics.losses(said.gate.loss, holdout["label"], metrics.predictions_of(holdout))
    except metrics.Unscorable:  # it was trained for another task or loss: the gate says so when it compares
        return None
    return retrain_policy.MeanLoss.of(losses, holdout["time"], said.evaluate.resamples, said.gate.confidence)


# ── what the monitor found ────────────────────────────────────────────────────────────────────────


def _report(model: str) -> dict[str, Any]:
    return files.read_state(paths.monitoring_report(model), dict[str, Any]())


def _alarms(report: Mapping[str, Any]) -> Iterator[retrain_policy.OpenAlarm]:
    """Drift of what is asked in production."""
    for one in report.get("alarms", []):
        if one["kind"] == "drift" and one["closed"] is None:
            yield retrain_policy.OpenAlarm(
                one["key"], one["what"], one["effect"], date.fromisoformat(one["since"][:10])
            )


def _measured(model: str, said: params.Model, candidate: str) -> retrain_policy.MeanLoss | None:
    """The loss of a release on what has a label, of the newest days on which anything has: as many as in a backtest."""
    from tasks.modelling import metrics
    from tasks.monitoring.intake import labels

    days = sorted(day for day, one in labels.read(model).days.items() if one.releases.get(candidate, {}).get("labels"))
    if not days:
        return None
    first = date.fromisoformat(days[-1]) - timedelta(days=retrain_policy.WINDOW_DAYS)
    rows = labels.frame(model, [day for day in days if date.fromisoformat(day) > first])
    known = metrics.labelled(said.task, labels.answers(rows[rows["release"] == candidate]))
    try:
        losses = metrics.losses(said.gate.loss, known["label"], metrics.predictions_of(known))
    except metrics.Unscorable:
        return None
    return retrain_policy.MeanLoss.of(losses, known["time"], said.evaluate.resamples, said.gate.confidence)


def _estimated(report: Mapping[str, Any], candidate: str, loss: str) -> retrain_policy.MeanLoss | None:
    """The newest week in which the loss of a release was estimated."""
    said = report.get("quality") or {"windows": [], "loss": loss}
    if said["loss"] != loss:
        return None
    for week in sorted(said["windows"], key=lambda one: str(one["until"]), reverse=True):
        if found := (week["releases"].get(candidate) or {}).get("estimated"):
            since, until = _naive(week["since"]), _naive(week["until"])
            return retrain_policy.MeanLoss(found["value"], found["low"], found["high"], 0, since, until)
    return None


def _naive(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=None)
