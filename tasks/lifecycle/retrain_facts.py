"""Facts that the retrain policy decides on: of the rows, the champion and the monitor's report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, params, paths, settings
from tasks.lifecycle import row_changes
from tasks.lifecycle.row_changes import Arrived
from tasks.modelling import measures
from tasks.monitoring.retrain_policy import WINDOW_DAYS, MeanLoss, OpenAlarm, PolicyState
from tasks.release.registry import champion_lookup

if TYPE_CHECKING:
    import pandas as pd

    from tasks.modelling.daily_summaries import ColumnLayout


def gather(model: str, config: params.Model, *, asked_by: str = "", edited: str = "") -> PolicyState:
    """What is known of a model now, on the rows as `prepare` has just written them."""
    from tasks.data import versions
    from tasks.modelling import rows

    build, champion = settings.BUILD / model, champion_lookup.champion(model)
    arrived = rows.arrived(build)
    folders = _champion_folders(model, champion.candidate) if champion else None
    # DVC removes what a stage is about to make: after a kill the last training that is known is the champion's
    last_training = _facts_of(build / "model") or (_facts_of(folders[0]) if folders else {})
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
        edited=edited or _changed_without_new(arrived, before, new),
        asked_by=asked_by,
    )
    return _with_champion(state, config, champion.candidate, *folders, arrived) if champion and folders else state


def _with_champion(
    state: PolicyState, config: params.Model, candidate: str, folder: Path, evaluation: Path, arrived: Arrived
) -> PolicyState:
    training, report = _facts_of(folder), monitoring_report(state.model)
    learned_until, before = row_changes.learned_until(training), training.get("arrived", {})
    new = row_changes.new_partitions(arrived, before)
    is_of_live = (report.get("release") or {}).get("candidate") == candidate
    reported = _reported_alarms(report) if is_of_live else ()
    return replace(
        state,
        learned_until=learned_until,
        learned_rows=training["rows"],
        newer_rows=row_changes.count_changed(new, before),
        revised_rows=row_changes.count_revised(training, arrived),
        newer_partitions=row_changes.newer_partitions(arrived, new, learned_until),
        alarms=(*_row_alarms(state.model, config, folder, list(new)), *reported),
        promised=_promised(config, evaluation),
        measured=_measured(state.model, config, candidate),
        estimated=_estimated(report, candidate, config.loss),
    )


def _changed_without_new(arrived: Arrived, before: Arrived, new: Arrived) -> str:
    """What, without any new row, asks for a training."""
    if removed := sorted(before.keys() - arrived.keys()):
        return f"{', '.join(removed)} left the data version: it"
    return "" if new else "what was made of the same rows is not as it was: it"


def _facts_of(training: Path) -> dict[str, Any]:
    return files.read_state(training / "training.json", dict[str, Any]())


def _champion_folders(model: str, candidate: str) -> tuple[Path, Path]:
    """Where the champion's training and evaluation are: in the build folder, if it was made last, or fetched."""
    build = settings.BUILD / model
    name = build / "release" / "candidate.json"
    is_complete = name.exists() and (build / "model").exists() and (build / "evaluation").exists()
    if is_complete and files.read_json(name)["candidate"] == candidate:
        return build / "model", build / "evaluation"
    folder = paths.champions() / candidate
    if not files.is_sealed(folder):
        from tasks.release.registry import registry, version_files

        version = registry.champion(model)
        assert version is not None  # champion_lookup has just given it
        folder = version_files.fetch_cached(model, version)
    return folder / "training", folder / "evaluation"


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
    if layout.measure:
        feature = config.features.get(layout.of)
        return feature is not None and layout.measure in measures.OF_TYPE.get(feature.type, ())
    if layout.name not in config.features:
        return layout.role == "label" and (layout.type == "category" or config.task != "classification")
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
    return _mean_loss(config, pd.read_parquet(path), is_holdout=True) if path.exists() else None


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


def _mean_loss(config: params.Model, rows: pd.DataFrame, *, is_holdout: bool = False) -> MeanLoss | None:
    """Of rows with label and predictions; None where these do not offer the loss of the gate."""
    from tasks.modelling import metrics

    try:
        losses = metrics.losses(config.loss, metrics.label_of(rows), metrics.predictions_of(rows))
    except metrics.Unscorable:  # it was trained for another task or loss: the gate says so when it compares
        return None
    how = (config.evaluate.resamples, config.gate.confidence)
    return MeanLoss.of(losses, rows["time"], *how, may_be_by_row=is_holdout)


# ── the monitor's report ──────────────────────────────────────────────────────────────────────────


def monitoring_report(model: str) -> dict[str, Any]:
    """The monitor's newest report of a model; empty where there is none."""
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
