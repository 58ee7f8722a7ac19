"""Has the world moved? Day summaries of the stream against those of the reference, without false alarms.

Each number that a day says of a column (series.py) is tested for itself, by a test whose unit is the day and which
holds however often one looks (sequential.py). A column's p-value is the smallest of its series', times their number
(Bonferroni). Over the columns the false discovery rate is held by the procedure of Benjamini & Yekutieli (2001), which
asks nothing of how columns depend on each other. While nothing has changed every discovery is a false one: so the
chance of *ever* alarming is at most `Thresholds.chance`, over a stream of any length.

Ranks know no «far outside», and of a short reference they say little (`DriftReport.sight` says how little). So a day that
lies far outside of all that the reference has seen is drift at once: by how much, and of how many rows (extremes.py).

`detect` is a pure function of the days that were seen. It tells the story from the first day each time, so that nothing
is carried from window to window, late rows fall into place, and how days were batched makes no difference.

A season is drift: July is not like the months from January to June. What follows from it, the retrain policy says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.modelling.daily_summaries import STEPS, ColumnDays, ColumnLayout, DaySummaries, Role
from tasks.monitoring.drift import anytime_test
from tasks.monitoring.drift.series import DaySeries, WatchedColumn, watch
from tasks.monitoring.drift.thresholds import Thresholds

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Days = npt.NDArray[np.datetime64]

Status = Literal["ok", "drift", "not enough data", "constant", "always missing", "new"]

ASPECTS = ("unknown", "missing", "mean", "share", "rare", "spread", "fit")
"""What can move. Of those that are about as evident, the first is named."""


BACK = 3
"""So many days in a row that are not extreme end what began with one that was."""

SIGHT_DAYS, SIGHT_STREAMS = 182, 25
"""How far ahead, and on how many streams, `DriftReport.sight` is told."""

SLOW = 14
"""Days in which a shift of any size should be found."""


@dataclass(frozen=True)
class Moved:
    """What moved of a column, in one of its series."""

    column: str
    role: Role
    aspect: str
    value: str | None
    """Of a share: of which value."""
    before: float
    now: float
    """In the column's unit, or a share. Of `fit`: 0, and by how much the mean is higher than it should be."""
    unit: str | None
    effect: float
    """At least 0. Of mean and fit: the change in standard deviations of the reference's rows (Glass's Δ); of spread:
    |now / before − 1|; of shares: their difference."""
    surprise: float
    """The change in standard deviations of the reference's days: what stands out most has the greatest."""
    since: date
    opened: date
    """The day whose rows were the last bit of evidence that it took."""
    closed: date | None
    text: str


@dataclass(frozen=True)
class DriftAlarm:
    """Everything that began to move together."""

    key: str
    """The day it opened, and the column that stood out most on it; another only if rows come late for days before."""
    since: date
    opened: date
    closed: date | None
    moved: tuple[Moved, ...]
    """What stands out most comes first: features before prediction and label, and of them those that moved themselves
    before those that no longer fit the others. Of a column that moved, came back and moved again, the most of it."""
    text: str


@dataclass(frozen=True)
class ColumnFinding:
    """What there is to say of one column."""

    name: str
    role: Role
    type: str
    status: Status
    text: str
    slight: bool
    """It moved beyond doubt, by less than `min_effect` and `min_change` ask for: no drift."""
    days: int
    """Of the whole stream, with at least one row."""
    rows: int
    p: float
    """Valid at any time, however often one has looked; 1 where nothing was tested."""
    q: float
    """The same, adjusted for the number of columns."""
    shift: float | None
    """Of a number: the change of the mean in standard deviations of the reference's rows."""
    cramers_v: float | None
    """Of a category: Cramér's V of the table of reference and recent counts, 0 to 1."""
    psi: float | None
    """Population stability index over values or bins, every count raised by a half so that it is finite."""
    missing: tuple[float, float]
    """The share that is missing: in the reference, and recently."""
    evidence: tuple[float, ...] = field(repr=False)
    """For pictures: log10 of the evidence after each day of the stream, of the series that has the most of it."""


@dataclass(frozen=True)
class DriftReport:
    """What the days of a stream say."""

    days: tuple[date, ...] = field(repr=False)
    threshold: float
    """log10 of the evidence that a column of four series needs for itself; where several move, each needs less."""
    findings: Mapping[str, ColumnFinding]
    alarms: tuple[DriftAlarm, ...]
    """Oldest first; closed ones too."""
    sight: str
    """What so short a reference cannot see, or not soon; empty where it is long enough."""

    @property
    def open(self) -> tuple[DriftAlarm, ...]:
        """The alarms that are not over."""
        return tuple(alarm for alarm in self.alarms if alarm.closed is None)


def detect(
    wanted: Mapping[str, ColumnLayout],
    reference: DaySummaries,
    stream: DaySummaries,
    thresholds: Thresholds | None = None,
    units: Mapping[str, str | None] | None = None,
) -> DriftReport:
    """What moved in the stream, since when and by how much. Pure: equal days give equal reports.

    Args:
        wanted: the columns (days.columns).
        reference: the days of the training rows. Columns may have different days: predictions have those of rows that
            the model was not trained on.
        stream: every day since the model went live.
        thresholds: what may be chosen.
        units: column → unit, for the texts.
    """
    thresholds = thresholds or Thresholds()
    watched, axis = watch(wanted, reference, stream, thresholds)
    story = _Timeline.tell(watched, len(axis), thresholds)
    moved = [
        _moved(one, episode, axis, (units or {}).get(one.column.name))
        for one, episodes in zip(watched, story.episodes, strict=True)
        for episode in episodes
    ]
    drifting = {one.column: one for one in moved if one.closed is None}
    tested = {
        one.column.name: (float(p), float(q), evidence)
        for one, p, q, evidence in zip(watched, story.p, story.q, story.evidence, strict=True)
    }
    findings = {
        name: _finding(column, reference.get(name), stream.get(name), drifting.get(name), tested.get(name), thresholds)
        for name, column in wanted.items()
    }
    threshold = float(np.log10(4 * _divisor(len(watched)) / thresholds.chance)) if watched else 0.0
    return DriftReport(
        tuple(axis.tolist()), threshold, findings, _alarms(moved, thresholds), _sight(watched, threshold)
    )


def _sight(watched: list[WatchedColumn], threshold: float) -> str:
    days = sorted(int(np.isfinite(one.before).sum()) for column in watched for one in column.series)
    if not days:
        return ""
    variance = np.concatenate([anytime_test.inflation(np.stack([s.before for s in one.series])) for one in watched])
    count, level = days[len(days) // 2], threshold * float(np.log(10))
    one, two, any_ = (_delay(count, round(float(np.median(variance)), 1), level, size) for size in (1.0, 2.0, 1e6))
    if any_ is not None and any_ <= SLOW:
        return ""
    within = ["not within half a year" if found is None else f"in about {found} days" for found in (one, two, any_)]
    return (
        f"a shift by one standard deviation of the {count} days to compare with is found {within[0]}, by two "
        f"{within[1]}, of any size {within[2]}; what lies far outside of all that was seen is told when its day is over"
    )


@lru_cache(maxsize=256)
def _delay(reference: int, variance: float, level: float, shift: float) -> int | None:
    """In how many days half of the streams show a shift, in standard deviations of days; None: not in SIGHT_DAYS."""
    rng = np.random.default_rng(0)
    before, now = rng.normal(size=(SIGHT_STREAMS, reference)), shift + rng.normal(size=(SIGHT_STREAMS, SIGHT_DAYS))
    scores = anytime_test.normal_scores(before, now)
    evidence = anytime_test.log_evidence(scores, np.ones(now.shape, dtype=bool), np.full(SIGHT_STREAMS, variance))
    is_found = np.maximum.accumulate(evidence, axis=1) >= level
    half = np.flatnonzero(is_found.sum(axis=0) * 2 >= SIGHT_STREAMS)
    return int(half[0]) + 1 if len(half) else None


# ── the story: what opened when, and closed ───────────────────────────────────────────────────────


@dataclass(frozen=True)
class _ColumnEpisode:
    """A column drifts: from the day it was noticed to the day it was seen to be over. Days by their place."""

    series: tuple[DaySeries, ...]
    """What moved; the first is named."""
    since: int
    opened: int
    closed: int | None

    def lasts(self, day: int) -> bool:
        """Whether it was not over before this day."""
        return self.closed is None or day <= self.closed


class _Test:
    """The test of one column, from some day on."""

    def __init__(self, watched: WatchedColumn) -> None:
        self.series = watched.series
        self.before = np.stack([one.before for one in self.series])
        self.now = np.stack([one.now for one in self.series])
        self.damping = np.stack([one.damping() for one in self.series])
        self.variance = anytime_test.inflation(self.before)
        nothing = np.zeros(self.now.shape[1], dtype=bool)
        self.extreme = np.stack([nothing if one.extreme is None else one.extreme for one in self.series])
        self.begin(0)

    def begin(self, day: int) -> None:
        """Test the days from this one on. What is known of those before it says nothing of them."""
        self.first = day
        now = self.now[:, day:]
        self.known = np.isfinite(now)
        self.scores = self.damping[:, day:] * anytime_test.normal_scores(self.before, now)
        self.evidence = anytime_test.log_evidence(self.scores, self.known, self.variance)
        self.highest = np.maximum.accumulate(self.evidence, axis=1)
        self.p = np.minimum(1.0, len(self.series) * np.exp(-self.highest.max(axis=0)))

    def episode(self, day: int, limit: float, thresholds: Thresholds) -> _ColumnEpisode | None:
        """What began to move, seen from this day, and when it was over, if it is; None if it is too little to matter.

        Args:
            day: on which the column is one of those that moved.
            limit: which p-values made it one.
            thresholds: how much matters.
        """
        upto = day - self.first + 1
        evident = self._evident(upto, limit)
        since = {
            s: self.first + anytime_test.change_point(self.scores[s, :upto], self.known[s, :upto]) for s in evident
        }
        matter = [s for s in evident if _matters(self.series[s], since[s], day, thresholds)]
        if not matter:
            return None
        begin = since[matter[0]]
        ends = [self._end(s, since[s], day) for s in matter]
        closed = None if None in ends else max(end for end in ends if end is not None)
        # what it is called is better known later: the first evidence is not always the plainest
        last = closed if closed is not None else self.first + self.p.size - 1
        later = self._evident(last - self.first + 1, limit)
        named = [s for s in later if _matters(self.series[s], begin, last, thresholds)] or matter
        return _ColumnEpisode(tuple(self.series[s] for s in named), begin, day, closed)

    def extreme_episode(self, day: int) -> _ColumnEpisode:
        """What begins on a day that is extreme, and when it was over, if it is."""
        which = sorted(
            np.flatnonzero(self.extreme[:, day]).tolist(), key=lambda s: ASPECTS.index(self.series[s].aspect)
        )
        quiet, closed = 0, None
        for after in range(day + 1, self.extreme.shape[1]):
            if np.isfinite(self.now[which, after]).any():
                quiet = 0 if self.extreme[:, after].any() else quiet + 1
            if quiet == BACK:
                closed = after
                break
        return _ColumnEpisode(tuple(self.series[s] for s in which), day, day, closed)

    def _evident(self, upto: int, limit: float) -> list[int]:
        """The series that moved, after so many days.

        What moved by itself comes before how it fits the others, and of what is about as evident, the plainest first.
        """
        level = self.highest[:, upto - 1]
        faint = level < level.max() / 2
        order = sorted(
            range(len(level)),
            key=lambda s: (self.series[s].aspect == "fit", faint[s], ASPECTS.index(self.series[s].aspect), -level[s]),
        )
        return [s for s in order if len(level) * np.exp(-level[s]) <= limit]

    def _end(self, series: int, since: int, opened: int) -> int | None:
        now = self.now[[series], since:]
        scores = (
            self.damping[[series], since:] * anytime_test.normal_scores(self.before[[series]], now, learning=False)
        )[0]
        drifted = opened + 1 - since
        known = np.isfinite(now[0, :drifted])
        level = float(scores[:drifted][known].mean()) if known.any() else 0.0
        after = anytime_test.returned(scores[drifted:], level, float(self.variance[series]))
        return None if after is None else opened + 1 + after


@dataclass(frozen=True)
class _Timeline:
    """What happened, column by column in the order of what is watched."""

    episodes: list[list[_ColumnEpisode]]
    p: Floats
    """(columns,) on the last day."""
    q: Floats
    evidence: Floats
    """(columns, days), log10, of the most evident series."""

    @staticmethod
    def tell(watched: list[WatchedColumn], days: int, thresholds: Thresholds) -> _Timeline:
        """Go through the days; what is said of one depends on no later one."""
        tests = [_Test(one) for one in watched]
        p = np.array([test.p for test in tests]).reshape(len(tests), days)
        evidence = np.array([test.evidence.max(axis=0) for test in tests]).reshape(len(tests), days)
        extreme = np.array([test.extreme.any(axis=0) for test in tests]).reshape(len(tests), days)
        episodes: list[list[_ColumnEpisode]] = [[] for _ in tests]
        for day in np.flatnonzero((p <= thresholds.chance).any(axis=0) | extreme.any(axis=0)).tolist():
            found = np.flatnonzero(_adjusted(p[:, day]) <= thresholds.chance).tolist()
            for at in sorted({*found, *np.flatnonzero(extreme[:, day]).tolist()}):
                if episodes[at] and episodes[at][-1].lasts(day):
                    continue
                if extreme[at, day]:
                    episode = tests[at].extreme_episode(day)
                else:
                    limit = thresholds.chance * len(found) / _divisor(len(tests))
                    if (evident := tests[at].episode(day, limit, thresholds)) is None:
                        continue
                    episode = evident
                episodes[at].append(episode)
                if episode.closed is not None and episode.closed + 1 < days:
                    begin = episode.closed + 1
                    tests[at].begin(begin)
                    p[at, begin:], evidence[at, begin:] = tests[at].p, tests[at].evidence.max(axis=0)
        last = p[:, -1] if days else np.ones(len(tests))
        return _Timeline(episodes, last, _adjusted(last), evidence / np.log(10))


def _adjusted(p: Floats) -> Floats:
    """p-values such that those of at most α have a false discovery rate of at most α, however they depend."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p, method="by")) if len(p) else p


def _divisor(columns: int) -> float:
    """What `chance` is divided by for the first of so many columns (Benjamini & Yekutieli 2001, theorem 1.3)."""
    return float(columns * sum(1 / k for k in range(1, columns + 1)))


def _matters(series: DaySeries, since: int, last: int, thresholds: Thresholds) -> bool:
    before, now = _levels(series, since, last)
    change = abs(now - before) / series.scale
    if series.aspect in ("mean", "fit", "spread"):
        return change >= thresholds.min_effect
    if series.aspect == "share":
        return change >= max(thresholds.min_change, thresholds.min_effect * float(np.sqrt(before * (1 - before))))
    return change >= (thresholds.min_change / 10 if series.aspect == "unknown" else thresholds.min_change)


# ── alarms ────────────────────────────────────────────────────────────────────────────────────────


def _moved(watched: WatchedColumn, episode: _ColumnEpisode, axis: Days, unit: str | None) -> Moved:
    last = episode.closed if episode.closed is not None else len(axis) - 1
    series, column = episode.series[0], watched.column
    before, now = _levels(series, episode.since, last)
    since = _date(axis[episode.since])
    return Moved(
        column=column.name,
        role=column.role,
        aspect=series.aspect,
        value=series.value,
        before=before,
        now=now,
        unit=unit if series.aspect in ("mean", "spread", "fit") else None,
        effect=abs(now - before) / series.scale,
        surprise=max(_surprise(one, episode.since, last) for one in episode.series),
        since=since,
        opened=_date(axis[episode.opened]),
        closed=None if episode.closed is None else _date(axis[episode.closed]),
        text=f"{_say(column.name, series, before, now, unit)} since {since}",
    )


def _levels(series: DaySeries, since: int, last: int) -> tuple[float, float]:
    """The mean over the reference, and over the days from `since` to `last`, each day by its rows."""
    return _average(series.before, series.weights[0]), _average(
        series.now[since : last + 1], series.weights[1][since : last + 1]
    )


def _average(values: Floats, weights: Floats) -> float:
    there = np.isfinite(values) & (weights > 0)
    return float(np.average(values[there], weights=weights[there])) if there.any() else 0.0


def _surprise(series: DaySeries, since: int, last: int) -> float:
    """How far days lie from the reference's mean, in standard deviations of its days (root mean square).

    Of features of which one moved, and which no longer fit each other, that one has the greatest: with P the inverse of
    their correlation matrix it is √P_kk for feature k, and |P_jk|/√P_jj ≤ √P_kk for another.
    """
    before, now = series.before[np.isfinite(series.before)], series.now[since : last + 1]
    scatter = float(np.std(before)) if len(before) else 0.0
    if not scatter:
        return 1e6
    square = float(np.mean((now[np.isfinite(now)] - np.mean(before)) ** 2))
    return min(float(np.sqrt(square)) / scatter, 1e6)


def _say(name: str, series: DaySeries, before: float, now: float, unit: str | None) -> str:
    measure, change = f" {unit}" if unit else "", "higher" if now > before else "lower"
    moved = f"{abs(now - before) / series.scale:.2f} standard deviations"
    shares = f"in {now:.1%} of rows, before in {before:.1%},"
    expected = " and ".join(series.companions)
    said = {
        "mean": f"is {abs(now - before):.3g}{measure} {change}, {moved} ({before:.4g} → {now:.4g})",
        "fit": f"is {abs(now):.3g}{measure} {change} than {expected} go with, {moved},",
        "spread": f"varies {'more' if now > before else 'less'} within a day ({before:.3g} → {now:.3g}{measure})",
        "missing": f"is missing {shares}",
        "unknown": f"has values that training did not know {shares}",
        "rare": f"has rare values {shares}",
        "share": f"is {series.value} {shares}",
    }
    return f"{name} {said[series.aspect]}"


_ROLES: tuple[Role, ...] = ("feature", "prediction", "label")


def _alarms(moved: list[Moved], thresholds: Thresholds) -> tuple[DriftAlarm, ...]:
    """One alarm per cause, as far as days can tell."""
    groups: list[list[Moved]] = []
    for one in sorted(moved, key=lambda one: (one.opened, _ROLES.index(one.role), -one.surprise, one.column)):
        for group in groups:
            if _same_cause(one, group, thresholds):
                group.append(one)
                break
        else:
            groups.append([one])
    return tuple(_alarm(group) for group in groups)


def _same_cause(one: Moved, group: list[Moved], thresholds: Thresholds) -> bool:
    """Whether a column belongs to an alarm that is open when it moves.

    It does if it began to move, or was noticed, when another of them was; if it is one of them that moves again; if all
    that is wrong with it is that it no longer fits the others, of which one drifts already; and if that is all that was
    wrong with them, so that this may be why.
    """
    if not any(other.closed is None or other.closed >= one.opened for other in group):
        return False
    dates = [pair for other in group for pair in ((one.since, other.since), (one.opened, other.opened))]
    together = any(abs((this - that).days) <= thresholds.cause_days for this, that in dates)
    again = any(one.column == other.column for other in group)
    numbers = [other.aspect for other in (one, *group) if other.aspect in ("mean", "spread", "missing", "fit")]
    misfit = one.aspect == "fit" and len(numbers) > 1
    explains = one.aspect in numbers and all(other.aspect == "fit" for other in group)
    return together or again or misfit or explains


def _alarm(group: list[Moved]) -> DriftAlarm:
    # a column that only no longer fits the others may be fine: it is the others that moved
    ranked = sorted(group, key=lambda one: (_ROLES.index(one.role), one.aspect == "fit", -one.surprise, one.opened))
    once = list({one.column: one for one in reversed(ranked)}.values())[::-1]
    ends = [one.closed for one in group if one.closed]
    others = ", ".join(one.column for one in once[1:])
    return DriftAlarm(
        key=f"{group[0].opened}-{group[0].column}",
        since=min(one.since for one in group),
        opened=group[0].opened,
        closed=max(ends) if len(ends) == len(group) else None,
        moved=tuple(once),
        text=once[0].text + (f"; with it moved {others}" if others else ""),
    )


def _date(day: Any) -> date:
    found: date = day.astype("datetime64[D]").item()
    return found


# ── findings ──────────────────────────────────────────────────────────────────────────────────────


def _finding(
    column: ColumnLayout,
    reference: ColumnDays | None,
    stream: ColumnDays | None,
    drift: Moved | None,
    tested: tuple[float, float, Floats] | None,
    thresholds: Thresholds,
) -> ColumnFinding:
    """Everything about one column; `drift` is its episode that is not over."""
    p, q, evidence = tested or (1.0, 1.0, np.empty(0))
    recent = None if stream is None else _recent(stream, drift, thresholds)
    status, text = _status(column, reference, stream, drift, thresholds)
    slight = status == "ok" and q <= thresholds.chance
    if slight:
        text = f"{column.name} differs from training, beyond doubt and by less than what matters"
    compared = reference is not None and recent is not None and recent.known.sum() and reference.known.sum()
    described = _compare(reference, recent) if compared and reference is not None and recent is not None else {}
    return ColumnFinding(
        name=column.name,
        role=column.role,
        type=column.type,
        status=status,
        text=text,
        slight=slight,
        days=0 if stream is None else len(stream.days),
        rows=0 if stream is None else int(stream.rows.sum()),
        p=p,
        q=q,
        shift=described.get("shift"),
        cramers_v=described.get("cramers_v"),
        psi=described.get("psi"),
        missing=(_missing(reference), _missing(recent)),
        evidence=tuple(evidence.tolist()),
    )


def _recent(stream: ColumnDays, drift: Moved | None, thresholds: Thresholds) -> ColumnDays:
    if drift is not None:
        return stream.since(np.datetime64(drift.since))
    return stream.since(stream.days[-1] - np.timedelta64(thresholds.recent_days - 1, "D"))


def _status(
    column: ColumnLayout,
    reference: ColumnDays | None,
    stream: ColumnDays | None,
    drift: Moved | None,
    thresholds: Thresholds,
) -> tuple[Status, str]:
    if column.type == "new" or reference is None:
        return "new", f"{column.name} was not there in training: there is nothing to hold it against"
    if drift is not None:
        return "drift", drift.text
    if stream is not None and not reference.known.sum() and not stream.known.sum():
        return "always missing", f"{column.name} is missing in every row, as in training"
    if lacking := _lacking(reference, stream, thresholds):
        return "not enough data", f"{column.name} has {lacking}"
    if stream is not None and _constant(reference, stream):
        return "constant", f"{column.name} has one value only, the same as in training"
    return "ok", f"{column.name} is as in training"


def _lacking(reference: ColumnDays, stream: ColumnDays | None, thresholds: Thresholds) -> str:
    """What there is too little of to say that nothing moved; empty where there is enough."""
    days, before = (
        0 if side is None else int((side.rows >= thresholds.min_rows).sum()) for side in (stream, reference)
    )
    if days < thresholds.min_days:
        return f"{days} days of at least {thresholds.min_rows} rows; it takes {thresholds.min_days}"
    if before < thresholds.min_reference_days:
        return f"{before} days in the reference; it takes {thresholds.min_reference_days}"
    return ""


def _constant(reference: ColumnDays, stream: ColumnDays) -> bool:
    n, total, squares = (
        float(side_before.sum() + side_now.sum())
        for side_before, side_now in (
            (reference.known, stream.known),
            (reference.total, stream.total),
            (reference.squares, stream.squares),
        )
    )
    bins = np.count_nonzero(reference.counts.sum(axis=0) + stream.counts.sum(axis=0))
    return bins == 1 and n * squares == total**2


def _missing(side: ColumnDays | None) -> float:
    return float(side.missing.sum() / max(side.rows.sum(), 1)) if side is not None else 0.0


def _compare(reference: ColumnDays, recent: ColumnDays) -> dict[str, float]:
    """Effect sizes. Of the rows: how large a change is has nothing to do with how sure it is."""
    counts = np.stack([reference.counts.sum(axis=0), recent.counts.sum(axis=0)])
    shares = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
    found = {"psi": float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())}
    if reference.column.type != "category":
        steps = [side.total.sum() / side.known.sum() for side in (recent, reference)]
        return {**found, "shift": float(steps[0] - steps[1]) / STEPS}
    from scipy.stats.contingency import association

    seen = counts[:, counts.sum(axis=0) > 0]
    return {**found, "cramers_v": float(association(seen, method="cramer")) if seen.shape[1] > 1 else 0.0}
