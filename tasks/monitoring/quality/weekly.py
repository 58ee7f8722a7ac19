"""Weekly windows of quality: measured where labels came, estimated where they did not yet.

    var/monitoring/<model>/weeks.json    the result of each week, and from which days

A week begins on Monday. Its result is a pure function of its days and, for the estimate, of the weeks before it as far
as their labels are known by now: it is computed again when one of these changes, and late labels end in the same
numbers. No estimate uses a label of its own week or of a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, numbers
from tasks.monitoring.intake import intake, labels
from tasks.runtime import answer_columns

if TYPE_CHECKING:
    import pandas as pd

    from tasks.ground import params
    from tasks.monitoring.intake.labels import Joined
    from tasks.monitoring.intake.reference import Reference
    from tasks.monitoring.quality.degradation import HoldoutLosses
    from tasks.monitoring.quality.quality import Estimate, Measured

EARLIER = 8
"""The errors of estimates are learned from the labels of the same release in so many weeks before."""

PAST = 26
"""The errors of other releases' estimates count for so many weeks."""

References = Callable[[str], "Reference | None"]
"""Candidate → its reference; None: it cannot be fetched."""

Week = dict[str, Any]
"""As report.json has a window, with `text`, and `releases`: candidate → the same of its own predictions."""


@dataclass(frozen=True)
class Measuring:
    """How predictions are measured."""

    task: str
    loss: str
    slices: tuple[str, ...]
    resamples: int
    confidence: float

    @staticmethod
    def of(model: params.Model) -> Measuring:
        """As in training and at the gate."""
        slices, gate = tuple(model.evaluate.slices), model.gate
        return Measuring(model.task, model.loss, slices, model.evaluate.resamples, gate.confidence)


def measured(model: str, joined: Joined, how: Measuring, references: References) -> list[Week]:
    """Every week in which there are predictions, oldest first. Only those that changed are computed."""
    days: dict[date, list[str]] = {}
    for day in sorted(joined.days):
        days.setdefault(monday(day), []).append(day)
    path = intake.folder(model) / "weeks.json"
    before = files.read_state(path, dict[str, Week]())
    weeks = _Weeks(model, how, references, days)
    results: dict[str, Week] = {}
    for week, own_days in days.items():
        near = [[joined.days[day].identity for day in days.get(other, [])] for other in (*_before(week), week)]
        errors = _errors(results, week)
        releases = {name: references(name) for day in own_days for name in joined.days[day].releases}
        # it may come later than the predictions
        has_holdout = {name: bool(own and own.holdout_file.exists()) for name, own in releases.items()}
        of = files.digest([near, errors, vars(how), has_holdout])[:16]
        result = before.get(week.isoformat(), {})
        if result.get("of") != of:
            result = {"of": of, **weeks.result(week, errors)}
        results[week.isoformat()] = result
    if results != before:
        files.write_json(path, results)
    return list(results.values())


def promised(how: Measuring, reference: Reference) -> dict[str, float] | None:
    """The loss on the holdout: {value, low, high}; None where that was not kept, has too few rows, or no such loss."""
    if not (path := reference.holdout_file).exists():
        return None
    key = {"holdout": files.sha256(path), **vars(how), "slices": None, "digits": numbers.DIGITS}
    loss: dict[str, float] | None = files.read_json(files.memo("promised", key, ".json", partial(_promise, how, path)))
    return loss


def _promise(how: Measuring, holdout: Path, target: Path) -> None:
    import pandas as pd

    from tasks.modelling import metrics
    from tasks.monitoring.quality import quality

    loss = None
    with suppress(metrics.Unscorable):  # it was trained for another task, or does not offer this loss
        loss = quality.promise(how.task, how.loss, pd.read_parquet(holdout), how.resamples, how.confidence)
    files.write_json(target, loss)


def holdout_losses(how: Measuring, reference: Reference, promise: Mapping[str, float]) -> HoldoutLosses:
    """The losses on the holdout, by day, of a reference that promised something."""
    from tasks.modelling import metrics
    from tasks.monitoring.quality.degradation import HoldoutLosses

    assert reference.holdout is not None  # `promised` was made of it
    rows = metrics.labelled(how.task, reference.holdout)
    losses = metrics.losses(how.loss, metrics.label_of(rows), metrics.predictions_of(rows))
    return HoldoutLosses.of(losses, metrics.day_blocks(rows["time"]), promise)


def basis(how: Measuring, reference: Reference, promise: Mapping[str, float] | None) -> str:
    """What the promise of a reference with a holdout rests on, where that is little."""
    from tasks.modelling import metrics
    from tasks.monitoring.quality import known

    assert reference.holdout is not None
    count = int(metrics.has_label(reference.holdout).sum())
    own = holdout_losses(how, reference, promise) if promise else None
    undated = bool(reference.holdout["time"].isna().all())
    return known.basis(how.loss, count, promise, own, undated=undated)


def monday(day: str) -> date:
    """The first day of a day's week."""
    first = date.fromisoformat(day)
    return first - timedelta(days=first.weekday())


def week_number(day: str) -> int:
    """The number of a day's week, counted from the first Monday of 1970: the same, whatever else is known."""
    return (monday(day) - date(1970, 1, 5)).days // 7


def utc(day: date) -> str:
    """The beginning of a day."""
    return f"{day.isoformat()}T00:00:00Z"


def span(week: date) -> dict[str, str]:
    """The beginning and the end of the week that begins on a day."""
    return {"since": utc(week), "until": utc(week + timedelta(days=7))}


def _errors(weeks: Mapping[str, Week], week: date) -> list[tuple[str, float]]:
    """The errors of the estimates of the weeks before one: candidate, error."""
    since = (week - timedelta(weeks=PAST)).isoformat()
    recent = [pair for start, result in weeks.items() if start >= since for pair in result["releases"].items()]
    return [(candidate, own["off"]) for candidate, own in recent if own["off"] is not None]


def _before(week: date) -> list[date]:
    return [week - timedelta(weeks=back) for back in range(EARLIER, 0, -1)]


@dataclass
class _Weeks:
    """Computes weeks; the labels that two of them need are read once."""

    model: str
    how: Measuring
    references: References
    days: Mapping[date, list[str]]
    labelled: dict[date, dict[str, pd.DataFrame]] = field(default_factory=dict)

    def result(self, week: date, errors: Sequence[tuple[str, float]]) -> Week:
        """Measure and estimate a week, overall and by release."""
        rows = labels.frame(self.model, self.days[week])
        candidates = sorted(rows["release"].unique().tolist())
        overall = self._measure(rows, self.how.slices)
        parts = {}
        for candidate in candidates:
            own = rows[rows["release"] == candidate]
            own_measured = overall if len(candidates) == 1 else self._measure(own, ())
            past = [error for other, error in errors if other != candidate]
            parts[candidate] = self._of_release(own, own_measured, self._earlier(week, candidate), past)
        fields = _fields(rows, overall)
        estimated, off = _weighted_estimate(list(parts.values())), None
        if estimated and fields["measured"] and all(part["off"] is not None for part in parts.values()):
            off = numbers.short(fields["measured"][self.how.loss]["value"] - estimated["value"])
        return {**span(week), **fields, "estimated": estimated, "off": off, "releases": parts}

    def _of_release(
        self, rows: pd.DataFrame, measured: Measured | str, earlier: pd.DataFrame | None, past: Sequence[float]
    ) -> dict[str, Any]:
        from tasks.monitoring.quality import quality

        result = {**_fields(rows, measured), "estimated": None, "off": None}
        del result["slices"]
        if isinstance(measured, str):
            return result
        estimate = self._estimate(rows, earlier, past)
        if isinstance(estimate, str):
            return {**result, "text": f"{result['text']}; no estimate: {estimate}"}
        off = quality.off(estimate, measured)
        value = {name: getattr(estimate, name) for name in ("value", "low", "high")}
        text = "; ".join([result["text"], estimate.text, *([off.text] if off else [])])
        return {**result, "estimated": value, "off": off.value if off else None, "text": text}

    def _estimate(self, rows: pd.DataFrame, earlier: pd.DataFrame | None, past: Sequence[float]) -> Estimate | str:
        """The estimated loss of the rows of a release; or why there is none."""
        from tasks.modelling import metrics
        from tasks.monitoring.quality import quality

        how, reference = self.how, self.references(rows["release"].iloc[0])
        if reference is None or reference.holdout is None:
            return "its answers on the holdout were not kept"
        frame, confidence = labels.answers(rows), how.confidence
        try:
            estimator = quality.LossEstimator.fit(how.task, how.loss, reference.holdout, earlier, past, confidence)
            return estimator.estimate(frame) or estimator.lacking(frame)
        except metrics.Unscorable as error:
            return str(error)

    def _measure(self, rows: pd.DataFrame, slices: Iterable[str]) -> Measured | str:
        """The measured quality; or why it cannot be measured."""
        from tasks.modelling import metrics
        from tasks.monitoring.quality import quality

        how, columns = self.how, [f"{intake.SLICE}{name}" for name in slices]
        try:
            return quality.measure(how.task, how.loss, labels.answers(rows), columns, how.resamples, how.confidence)
        except metrics.Unscorable as error:
            return f"cannot be measured: {error}"

    def _earlier(self, week: date, candidate: str) -> pd.DataFrame | None:
        """The labelled predictions of a release in the weeks before one."""
        import pandas as pd

        weeks = [earlier for earlier in _before(week) if earlier in self.days]
        self.labelled = {
            earlier: self.labelled.get(earlier) or _labelled(labels.frame(self.model, self.days[earlier]))
            for earlier in weeks
        }
        parts = [own[candidate] for own in self.labelled.values() if candidate in own]
        return pd.concat(parts, ignore_index=True) if parts else None


def _labelled(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Candidate → time, label and predictions of the rows that have a label: what estimates need of a week."""
    from tasks.modelling import metrics

    own = ["time", *answer_columns.labels(rows.columns), "release", *metrics.predictions_of(rows).columns]
    with_label = rows.loc[metrics.has_label(rows), own]
    return {
        str(candidate): labels.answers(own.drop(columns="release")) for candidate, own in with_label.groupby("release")
    }


def _fields(rows: pd.DataFrame, measured: Measured | str) -> dict[str, Any]:
    """As report.json has them."""
    from tasks.modelling import metrics

    labels_known = int(metrics.has_label(rows).sum())
    counts = {"rows": len(rows), "labels": labels_known, "measured": None, "slices": None}
    if isinstance(measured, str) or not measured.metrics:
        return {**counts, "text": measured if isinstance(measured, str) else measured.text}
    slices = {column.removeprefix(intake.SLICE): values for column, values in measured.slices.items()}
    return {**counts, "measured": measured.metrics, "slices": slices, "text": measured.text}


def _weighted_estimate(parts: list[dict[str, Any]]) -> dict[str, float] | None:
    """The estimate of all rows, from those of each release; None where one has none.

    They err together, as the days are the same: their intervals are added as if they did so wholly.
    """
    total = sum(part["rows"] for part in parts)
    if not total or any(part["estimated"] is None for part in parts):
        return None
    return {
        name: numbers.short(sum(part["rows"] * part["estimated"][name] for part in parts) / total)
        for name in ("value", "low", "high")
    }
