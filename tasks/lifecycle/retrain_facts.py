"""Facts of the retrain policy, gathered from the rows, the champion and the monitor; and the journal of its decisions.

The policy decides (tasks/monitoring/retrain_policy.py); its answers are kept:

    var/decisions/<model>.jsonl        every decision with the facts it was made from, «no» as well
    var/memo/due/<model>.json          a training that a person or an edit asks for, until it has ended

A decision is a function of the data, not of the clock: with equal facts it is equal, so only a change of them is asked
about again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, ledger, outcome_cache, params, paths, settings
from tasks.lifecycle import row_changes
from tasks.lifecycle.row_changes import Arrived
from tasks.monitoring.retrain_policy import WINDOW_DAYS, Decision, MeanLoss, OpenAlarm, PolicyState
from tasks.monitoring.retrain_policy import decide as decide_by_policy
from tasks.release.registry import champion_lookup

if TYPE_CHECKING:
    import pandas as pd

    from tasks.modelling.daily_summaries import ColumnLayout


# ── decisions ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Override:
    """What needs no policy: a person asks, or something was edited. It holds until the training has ended."""

    asked_by: str = ""
    edited: str = ""


def override(model: str, asked_by: str, edited: str) -> Override:
    """The override, with that of a killed run: what it made meanwhile no longer looks edited."""
    before = _kept_override(model)
    now = Override(asked_by or before.asked_by, edited or before.edited)
    if now not in (before, Override()):
        files.write_json(paths.training_override(model), asdict(now))
    return now


def is_requested(model: str, if_due: bool) -> bool:
    """Whether a person asks: now, or in a run that was killed before its end."""
    return not if_due or bool(_kept_override(model).asked_by)


def clear_override(model: str) -> None:
    """The training that was due has ended."""
    paths.training_override(model).unlink(missing_ok=True)


def _kept_override(model: str) -> Override:
    return files.read_state(paths.training_override(model), Override(), lambda value: Override(**value))


def hold(model: str, why: str, run: str) -> None:
    """Keep that the policy was not asked, and why; once for each reason. What was edited is not asked for."""
    clear_override(model)
    if (before := last(model)) is None or before["why"] != why:
        record = {"id": files.digest(why)[:16], "retrain": False, "why": why, "reasons": [], "state": {}, "policy": {}}
        _keep(model, record, run)


def decide(model: str, override: Override, run: str) -> Decision:
    """Ask the policy, on the rows as `prepare` has just written them, and keep its answer.

    Args:
        model: a name below `models` in params.yaml.
        override: what needs no policy.
        run: the address of the flow run that asks.
    """
    config = params.load().model(model)
    decision = decide_by_policy(_state(model, config, override), config.retrain)
    if (before := last(model)) is None or before["id"] != decision.id:
        _keep(model, decision.to_dict(), run)
    return decision


def _keep(model: str, record: Mapping[str, Any], run: str) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    ledger.append(paths.decisions(model), {"at": at, "run": run, **record})


def last(model: str) -> dict[str, Any] | None:
    """The newest decision, as it was written down."""
    lines = ledger.lines(paths.decisions(model))
    return lines[-1] if lines else None


def refused(model: str) -> str | None:
    """Why a training was not due at the last decision; None where one of its facts has changed."""
    why: str | None = outcome_cache.recall(paths.refused_training(model), lambda: facts_digest(model))
    return why


def refuse(model: str, why: str, on: str) -> None:
    """Keep that a training is not due, given these `facts_digest`: the next trigger need not gather the facts."""
    outcome_cache.keep(paths.refused_training(model), on, why)


def facts_digest(model: str) -> str:
    """The identity of what a decision depends on. What was edited is not in it."""
    report, champion = _report(model), champion_lookup.champion(model)
    on = {path: files.sha256(settings.ROOT / path) for path in ("data.dvc", "dvc.lock", "params.yaml")}
    findings = {"alarms": report.get("alarms"), "quality": report.get("quality")}
    return files.digest({**on, **findings, "champion": champion.candidate if champion else None})


# ── the facts ─────────────────────────────────────────────────────────────────────────────────────


def _state(model: str, config: params.Model, override: Override) -> PolicyState:
    from tasks.data import versions
    from tasks.modelling import rows

    build = settings.BUILD / model
    arrived, champion = rows.arrived(build), _champion(model)
    # DVC removes what a stage is about to make: after a kill the last training that is known is the champion's
    last_training = _training(build / "model") or (_training(champion.training) if champion else {})
    before: Arrived = last_training.get("arrived", {})
    for name, partition in arrived.items():  # while its bytes are here
        row_changes.fingerprints(partition["sha256"], build / "rows" / f"{name}.parquet")
    new = row_changes.new_partitions(arrived, before)
    state = PolicyState(
        model=model,
        now=row_changes.newest_time(arrived),
        data_version=versions.current(),
        trained_at=row_changes.newest_time(before) if before else None,
        new_rows=row_changes.count_changed(new, before),
        new_partitions=len(new),
        edited=override.edited or _changed_without_new(arrived, before, new),
        asked_by=override.asked_by,
    )
    return _with_champion(state, config, champion, arrived) if champion else state


def _with_champion(state: PolicyState, config: params.Model, champion: _Champion, arrived: Arrived) -> PolicyState:
    training, report = _training(champion.training), _report(state.model)
    learned_until, before = row_changes.learned_until(training), training.get("arrived", {})
    new = row_changes.new_partitions(arrived, before)
    is_of_live = (report.get("release") or {}).get("candidate") == champion.candidate
    reported = _reported_alarms(report) if is_of_live else ()
    return replace(
        state,
        learned_until=learned_until,
        learned_rows=training["rows"],
        newer_rows=row_changes.count_changed(new, before),
        revised_rows=row_changes.count_revised(training, arrived),
        newer_partitions=sum(datetime.fromisoformat(of["from"]) > learned_until for of in arrived.values()),
        alarms=(*_row_alarms(state.model, config, champion.training, list(new)), *reported),
        promised=_promised(config, champion.evaluation),
        measured=_measured(state.model, config, champion.candidate),
        estimated=_estimated(report, champion.candidate, config.gate.loss),
    )


def _changed_without_new(arrived: Arrived, before: Arrived, new: Arrived) -> str:
    """What, without any new row, asks for a training."""
    if removed := sorted(before.keys() - arrived.keys()):
        return f"{', '.join(removed)} left the data version: it"
    return "" if new else "what was made of the same rows is not as it was: it"


def _training(folder: Path) -> dict[str, Any]:
    return files.read_state(folder / "training.json", dict[str, Any]())


@dataclass(frozen=True)
class _Champion:
    """Where the champion's training and evaluation are."""

    candidate: str
    training: Path
    evaluation: Path


def _champion(model: str) -> _Champion | None:
    champion = champion_lookup.champion(model)
    if champion is None:
        return None
    build = settings.BUILD / model
    name = build / "release" / "candidate.json"
    is_complete = name.exists() and (build / "model").exists() and (build / "evaluation").exists()
    if is_complete and files.read_json(name)["candidate"] == champion.candidate:
        return _Champion(champion.candidate, build / "model", build / "evaluation")
    folder = paths.champions() / champion.candidate
    if not files.is_sealed(folder):
        from tasks.release.registry import registry

        version = registry.champion(model)
        assert version is not None  # champion_lookup has just given it
        folder = registry.fetch_cached(model, version)
    return _Champion(champion.candidate, folder / "training", folder / "evaluation")


# ── drift of the rows, and quality ────────────────────────────────────────────────────────────────


def _row_alarms(model: str, config: params.Model, training: Path, partitions: list[str]) -> Iterator[OpenAlarm]:
    """What drifts in the rows that came since the champion was trained, against those that it learned from."""
    from tasks.modelling import daily_summaries
    from tasks.monitoring.drift import drift

    reference = training / "reference.parquet"
    if not partitions or not reference.exists():
        return
    learned = daily_summaries.columns(files.read_json(training / "profile.json"), config.features)
    layouts = {name: layout for name, layout in learned.items() if _is_as_learned(layout, config)}
    days = []
    for name in sorted(partitions):
        path = settings.BUILD / model / "rows" / f"{name}.parquet"
        key = {"rows": files.sha256(path), "layout": {column: layout.layout for column, layout in layouts.items()}}
        memo = files.memo("days", key, ".parquet", partial(_summarise, path, layouts))
        days.append(daily_summaries.from_bytes(memo.read_bytes(), layouts))
    before = daily_summaries.from_bytes(reference.read_bytes(), layouts)
    yield from map(OpenAlarm.of, drift.detect(layouts, before, daily_summaries.merge(days)).open)


def _is_as_learned(layout: ColumnLayout, config: params.Model) -> bool:
    """Whether a column still has the type that the champion knows; otherwise it cannot be compared."""
    if layout.name not in config.features:
        return layout.role == "label" and (layout.type == "category" or config.task == "regression")
    now = config.features[layout.name].type
    return layout.type in ("new", now) or {layout.type, now} == {"number", "integer"}


def _summarise(rows: Path, layouts: Mapping[str, ColumnLayout], target: Path) -> None:
    import pandas as pd

    from tasks.modelling import daily_summaries

    target.write_bytes(daily_summaries.to_bytes(daily_summaries.summarise(pd.read_parquet(rows), layouts)))


def _promised(config: params.Model, evaluation: Path) -> MeanLoss | None:
    """The loss that the champion's evaluation promised."""
    import pandas as pd

    path = evaluation / "predictions.parquet"
    return _mean_loss(config, pd.read_parquet(path)) if path.exists() else None


def _measured(model: str, config: params.Model, candidate: str) -> MeanLoss | None:
    """The loss of a release on the newest days with labels: as many as in a backtest."""
    from tasks.modelling import metrics
    from tasks.monitoring.intake import labels

    joined = sorted(labels.read(model).days.items())
    days = [day for day, made in joined if made.releases.get(candidate, {}).get("labels")]
    if not days:
        return None
    first = date.fromisoformat(days[-1]) - timedelta(days=WINDOW_DAYS)
    rows = labels.frame(model, [day for day in days if date.fromisoformat(day) > first])
    return _mean_loss(config, metrics.labelled(config.task, labels.answers(rows[rows["release"] == candidate])))


def _mean_loss(config: params.Model, rows: pd.DataFrame) -> MeanLoss | None:
    """Of rows with label and predictions; None where these do not offer the loss of the gate."""
    from tasks.modelling import metrics

    try:
        losses = metrics.losses(config.gate.loss, rows["label"], metrics.predictions_of(rows))
    except metrics.Unscorable:  # it was trained for another task or loss: the gate says so when it compares
        return None
    return MeanLoss.of(losses, rows["time"], config.evaluate.resamples, config.gate.confidence)


# ── the monitor's report ──────────────────────────────────────────────────────────────────────────


def _report(model: str) -> dict[str, Any]:
    return files.read_state(paths.monitoring_report(model), dict[str, Any]())


def _reported_alarms(report: Mapping[str, Any]) -> Iterator[OpenAlarm]:
    """Drift of the requests in production."""
    for alarm in report.get("alarms", []):
        if alarm["kind"] == "drift" and alarm["closed"] is None:
            yield OpenAlarm(alarm["key"], alarm["what"], alarm["effect"], date.fromisoformat(alarm["since"][:10]))


def _estimated(report: Mapping[str, Any], candidate: str, loss: str) -> MeanLoss | None:
    """The newest week in which the loss of a release was estimated."""
    quality = report.get("quality") or {"windows": [], "loss": loss}
    if quality["loss"] != loss:
        return None
    for week in sorted(quality["windows"], key=lambda week: str(week["until"]), reverse=True):
        if entry := (week["releases"].get(candidate) or {}).get("estimated"):
            since, until = (datetime.fromisoformat(week[end]).replace(tzinfo=None) for end in ("since", "until"))
            return MeanLoss(entry["value"], entry["low"], entry["high"], 0, since, until)
    return None
