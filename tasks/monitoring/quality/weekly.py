"""Quality, week by week: measured where labels came, estimated where they did not yet.

    var/monitoring/<model>/weeks.json    what was found of each week, and from which days

A week begins on Monday. What is said of it is a pure function of its days and, for the estimate, of the weeks before it
as far as their labels are known by now: so it is computed again when one of these changes, and labels that came late
end in the same numbers. No estimate uses a label of its own week or of a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, numbers
from tasks.monitoring.intake import intake, labels

if TYPE_CHECKING:
    import pandas as pd

    from tasks.ground import params
    from tasks.monitoring.intake.labels import Joined
    from tasks.monitoring.intake.reference import Reference
    from tasks.monitoring.quality.quality import Measured

EARLIER = 8
"""Weeks before one whose labels of the same release say how far off estimates are."""

PAST = 26
"""Weeks before one in which estimates of other releases may have been off."""

References = Callable[[str], "Reference | None"]
"""Candidate → what it is held against; None: that cannot be had."""

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
    def of(said: params.Model) -> Measuring:
        """As params.yaml says: like training and the gate."""
        slices, gate = tuple(said.evaluate.slices), said.gate
        return Measuring(said.task, gate.loss, slices, said.evaluate.resamples, gate.confidence)


def measured(model: str, joined: Joined, how: Measuring, references: References) -> list[Week]:
    """Every week in which there are predictions, oldest first. Only those that changed are computed.

    Args:
        model: whose.
        joined: the days.
        how: what is measured.
        references: of the releases that were asked.
    """
    days: dict[date, list[str]] = {}
    for day in sorted(joined.days):
        days.setdefault(monday(day), []).append(day)
    path = intake.folder(model) / "weeks.json"
    known = files.read_state(path, dict[str, Week]())
    found = _Weeks(model, how, references, days)
    told: dict[str, Week] = {}
    for week, own in days.items():
        near = [[joined.days[day].identity for day in days.get(one, [])] for one in (*_before(week), week)]
        offs = _offs(told, week)
        held = {name: _held(references(name)) for day in own for name in joined.days[day].releases}
        of = files.digest([near, offs, vars(how), held])[:16]
        there = known.get(week.isoformat())
        told[week.isoformat()] = there if there and there["of"] == of else {"of": of, **found.week(week, offs)}
    if told != known:
        files.write_json(path, told)
    return list(told.values())


def promised(how: Measuring, reference: Reference) -> dict[str, float] | None:
    """The loss on the holdout: {value, low, high}; None where that was not kept, has too few rows, or no such loss."""
    path = reference.folder / "evaluation" / "predictions.parquet"
    if not path.exists():
        return None
    key = {"holdout": files.sha256(path), **vars(how), "slices": None, "digits": numbers.DIGITS}
    found: dict[str, float] | None = files.read_json(files.memo("promised", key, ".json", partial(_promise, how, path)))
    return found


def _promise(how: Measuring, holdout: Path, target: Path) -> None:
    import pandas as pd

    from tasks.modelling import metrics
    from tasks.monitoring.quality import quality

    found = None
    with suppress(metrics.Unscorable):  # it was trained for another task, or does not offer this loss
        measured = quality.measure(how.task, how.loss, pd.read_parquet(holdout), (), how.resamples, how.confidence)
        found = measured.of_loss
    files.write_json(target, found)


def monday(day: str) -> date:
    """The first day of a day's week."""
    found = date.fromisoformat(day)
    return found - timedelta(days=found.weekday())


def week_number(week: Mapping[str, Any]) -> int:
    """Which week it is, counted from the first Monday of 1970: the same, whatever else is known."""
    return (monday(week["since"][:10]) - date(1970, 1, 5)).days // 7


def utc(day: date) -> str:
    """The beginning of a day."""
    return f"{day.isoformat()}T00:00:00Z"


def _offs(told: Mapping[str, Week], week: date) -> list[tuple[str, float]]:
    """How far off the estimates of the weeks before one were: candidate, error."""
    since = (week - timedelta(weeks=PAST)).isoformat()
    found = [pair for monday, one in told.items() if monday >= since for pair in one["releases"].items()]
    return [(candidate, said["off"]) for candidate, said in found if said["off"] is not None]


def _held(reference: Reference | None) -> bool:
    """Whether there is a holdout to learn from; it may come later than what is held against it."""
    return reference is not None and (reference.folder / "evaluation" / "predictions.parquet").exists()


def _before(week: date) -> list[date]:
    return [week - timedelta(weeks=back) for back in range(EARLIER, 0, -1)]


@dataclass
class _Weeks:
    """The weeks that are computed; what two of them need is read once."""

    model: str
    how: Measuring
    references: References
    days: Mapping[date, list[str]]

    def __post_init__(self) -> None:
        self._labelled: dict[date, dict[str, pd.DataFrame]] = {}

    def week(self, week: date, offs: Sequence[tuple[str, float]]) -> Week:
        """What there is to say of one."""
        rows = labels.frame(self.model, self.days[week])
        candidates = sorted(rows["release"].unique().tolist())
        found = self._measure(rows, self.how.slices)
        parts = {}
        for one in candidates:
            own = rows[rows["release"] == one]
            past = [off for candidate, off in offs if candidate != one]
            own_found = found if len(candidates) == 1 else self._measure(own, ())
            parts[one] = self._of_release(own, own_found, self._earlier(week, one), past)
        whole = self._said(rows, found)
        estimated = _together([(one["rows"], one["estimated"]) for one in parts.values()])
        off = None
        if estimated and whole["measured"] and all(one["off"] is not None for one in parts.values()):
            off = numbers.short(whole["measured"][self.how.loss]["value"] - estimated["value"])
        until = week + timedelta(days=7)
        said = {"since": utc(week), "until": utc(until), **whole, "estimated": estimated, "off": off}
        return {**said, "releases": parts}

    def _of_release(
        self, rows: pd.DataFrame, found: Measured | str, earlier: pd.DataFrame | None, past: Sequence[float]
    ) -> dict[str, Any]:
        from tasks.modelling import metrics
        from tasks.monitoring.quality import quality

        said = {**self._said(rows, found), "estimated": None, "off": None}
        del said["slices"]
        reference = self.references(rows["release"].iloc[0])
        if isinstance(found, str) or reference is None or reference.holdout is None:
            why = "" if isinstance(found, str) else "; no estimate, as its answers on the holdout were not kept"
            return {**said, "text": f"{said['text']}{why}"}
        frame, how, holdout = labels.answers(rows), self.how, reference.holdout
        try:
            estimator = quality.LossEstimator.fit(
                how.task, how.loss, holdout, earlier=earlier, past=past, confidence=how.confidence
            )
            estimate, lacking = estimator.estimate(frame), estimator.lacking(frame)
        except metrics.Unscorable as error:
            return {**said, "text": f"{said['text']}; no estimate: {error}"}
        if estimate is None:
            return {**said, "text": f"{said['text']}; no estimate: {lacking}"}
        off = quality.off(estimate, found)
        value = {name: getattr(estimate, name) for name in ("value", "low", "high")}
        text = "; ".join([said["text"], estimate.text, *([off.text] if off else [])])
        return {**said, "estimated": value, "off": off.value if off else None, "text": text}

    def _measure(self, rows: pd.DataFrame, slices: Iterable[str]) -> Measured | str:
        """What predictions turned out to be worth; or why that cannot be told."""
        from tasks.modelling import metrics
        from tasks.monitoring.quality import quality

        how, columns = self.how, [f"{intake.SLICE}{name}" for name in slices]
        try:
            return quality.measure(how.task, how.loss, labels.answers(rows), columns, how.resamples, how.confidence)
        except metrics.Unscorable as error:
            return f"cannot be measured: {error}"

    def _said(self, rows: pd.DataFrame, found: Measured | str) -> dict[str, Any]:
        """As JSON has it."""
        counts = {"rows": len(rows), "labels": int(rows["label"].notna().sum()), "measured": None, "slices": None}
        if isinstance(found, str) or not found.metrics:
            return {**counts, "text": found if isinstance(found, str) else found.text}
        parts = {column.removeprefix(intake.SLICE): values for column, values in found.slices.items()}
        return {**counts, "measured": found.metrics, "slices": parts, "text": found.text}

    def _earlier(self, week: date, candidate: str) -> pd.DataFrame | None:
        """The labelled predictions of a release in the weeks before one."""
        import pandas as pd

        there = [one for one in _before(week) if one in self.days]
        self._labelled = {one: known for one, known in self._labelled.items() if one in there}
        for one in there:
            if one not in self._labelled:
                self._labelled[one] = _labelled(labels.frame(self.model, self.days[one]))
        found = [self._labelled[one][candidate] for one in there if candidate in self._labelled[one]]
        return pd.concat(found, ignore_index=True) if found else None


def _labelled(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Candidate → time, label and predictions of the rows that have a label: what estimates need of a week."""
    from tasks.modelling import metrics

    known = rows[rows["label"].notna()]
    wanted = ["time", "label", *metrics.predictions_of(rows).columns]
    return {str(candidate): labels.answers(part[wanted]) for candidate, part in known.groupby("release")}


def _together(parts: list[tuple[int, dict[str, float] | None]]) -> dict[str, float] | None:
    """The estimate of all rows, from those of each release; None where one has none.

    They err together, as the days are the same: their intervals are added as if they did so wholly.
    """
    total = sum(rows for rows, _ in parts)
    if not total or any(one is None for _, one in parts):
        return None
    names = ("value", "low", "high")
    return {name: numbers.short(sum(rows * one[name] for rows, one in parts if one) / total) for name in names}
