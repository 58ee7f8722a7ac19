"""Daily series: the few numbers that a day gives of a column.

- A number has a mean, a spread within the day (a stuck sensor has none), the missing share, and a `fit`: how far the
  mean lies from what the features' means go with. A thermometer that is 4 degrees off is lost among the seasons, but it
  stops fitting dew point and humidity on the first day. A label of two values has a fit too.
- A category, and a label of few values, has the share of each common value, of the rare ones together, of values that
  the reference does not know, and the missing share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.modelling.daily_summaries import STEPS, ColumnDays, ColumnLayout, DaySummaries
from tasks.monitoring.drift import extremes, thresholds
from tasks.monitoring.drift.anytime_test import WEEK
from tasks.monitoring.drift.gross import GrossTest

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Days = npt.NDArray[np.datetime64]

FIT_DAYS = 60
"""`fit` needs so many reference days on which all is known; and four per feature."""

KNOWN = 0.1
"""A day of which a smaller share is known says nothing of a column's values: the fewer rows a day has, the more often
that share would be zero, and which days have a mean would depend on how many rows they have."""

COMPANIONS = 2
"""So many of the features that a fit rests on are named."""


@dataclass(frozen=True)
class DaySeries:
    """One number per day, of the reference and of the stream; nan where a day has none."""

    aspect: str
    before: Floats
    now: Floats
    weights: tuple[Floats, Floats]
    """The rows that each of these numbers is of."""
    noise: float
    """Variance between the rows of a day: what is divided by their number."""
    scale: float = 1.0
    """The unit of effect sizes."""
    value: str | None = None
    """Of a share: of which value."""
    companions: tuple[str, ...] = ()
    """Of `fit`: the features that say most of where the mean should lie."""
    extreme: Bools | None = None
    """Days far outside of all of the reference (extremes.py); None: not defined."""
    gross: GrossTest | None = None
    """How it is compared beside the ranks where the reference has few days."""

    def is_extreme(self) -> Bools:
        """Which days of the stream lie far outside."""
        return np.zeros(len(self.now), dtype=bool) if self.extreme is None else self.extreme

    def damping(self) -> Floats:
        """The factor of each day's score: below 1 where the day has fewer rows than before, and so scatters more.

        The variance of a day's mean is that between days plus that within days / rows (analysis of variance with
        random effects).
        """
        rows = self.weights[0][np.isfinite(self.before)]
        if not len(rows) or not self.noise:
            return np.ones(len(self.now))
        sampled = self.noise * float(np.mean(1 / rows))
        between = max(float(np.nanvar(self.before)) - sampled, 0.0)
        rows_now = np.maximum(self.weights[1], 1)
        return np.asarray(np.minimum(1.0, np.sqrt((between + sampled) / (between + self.noise / rows_now))))

    def levels(self, since: int, last: int) -> tuple[float, float]:
        """The mean over the reference, and over the days from `since` to `last`, each day by its rows."""
        days = slice(since, last + 1)
        if self.gross is not None:
            (now, rows) = self.gross.now
            return _average(*self.gross.before), _average(now[days], rows[days])
        return _average(self.before, self.weights[0]), _average(self.now[days], self.weights[1][days])


@dataclass(frozen=True)
class WatchedColumn:
    """A column with its series."""

    layout: ColumnLayout
    series: tuple[DaySeries, ...]


def watch(
    layouts: Mapping[str, ColumnLayout], reference: DaySummaries, stream: DaySummaries
) -> tuple[list[WatchedColumn], Days]:
    """The series of every column that the reference has, and the days of the stream.

    A column of which the stream has no day yet is included: the evidence that another needs must not change when the
    first label comes.
    """
    before, after = _axis(reference), _axis(stream)
    pairs = {
        name: (reference[name], stream.get(name, reference[name].none()))
        for name, layout in layouts.items()
        if name in reference and layout.type != "new"
    }
    axes = before, after
    sides = {
        name: (_DailyValues.of(learned_days(pair[0]), before), _DailyValues.of(pooled(pair[1]), after))
        for name, pair in pairs.items()
    }
    series = {name: _of_column(layouts[name], sides[name], _few(pair, axes)) for name, pair in pairs.items()}
    # a day far outside says nothing of how the others go together
    extreme = {name: np.any([each.is_extreme() for each in own], axis=0) for name, own in series.items()}
    for name, fit in _fits(layouts, sides, extreme).items():
        series[name].append(fit)
    return [WatchedColumn(layouts[name], tuple(own)) for name, own in series.items() if own], after


def pooled(days: ColumnDays) -> ColumnDays:
    """The same days, those of fewer than MIN_ROWS rows put together until they have as many: the last one has all.

    What is left over at the end is left out. So three rows a week are a day in a fortnight.
    """
    if (days.rows >= thresholds.MIN_ROWS).all():
        return days
    group, ends = _groups(days)
    return _grouped(days, group, ends)


def learned_days(days: ColumnDays) -> ColumnDays:
    """The days of a reference. Where most have few rows, all of them are one: a mean of days is steadier than a day."""
    if 2 * int((days.rows < thresholds.MIN_ROWS).sum()) <= len(days.days):
        return pooled(days)
    is_enough = int(days.rows.sum()) >= thresholds.MIN_ROWS
    return _grouped(days, np.zeros(len(days.days), dtype=np.int64), [len(days.days) - 1]) if is_enough else days.none()


def _groups(days: ColumnDays) -> tuple[npt.NDArray[np.int64], list[int]]:
    """The group of each day (-1: none), and the last day of each group."""
    group, waiting, total, ends = np.full(len(days.days), -1), list[int](), 0, list[int]()
    for day, rows in enumerate(days.rows.tolist()):
        is_thin = rows < thresholds.MIN_ROWS
        waiting, total = ([*waiting, day], total + rows) if is_thin else (waiting, total)
        if not is_thin or total >= thresholds.MIN_ROWS:
            group[waiting if is_thin else day] = len(ends)
            ends.append(day)
            waiting, total = ([], 0) if is_thin else (waiting, total)
    return group, ends


def _grouped(days: ColumnDays, group: npt.NDArray[np.int64], ends: list[int]) -> ColumnDays:
    whole = group >= 0

    def summed(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        out = np.zeros((len(ends), *values.shape[1:]), dtype=values.dtype)
        np.add.at(out, group[whole], values[whole])
        return out

    sums = {name: summed(getattr(days, name)) for name in ("rows", "missing", "total", "squares", "counts")}
    return ColumnDays(days.column, days.days[ends], **sums, unknown=tuple(days.unknown[day] for day in ends))


def _few(pair: tuple[ColumnDays, ColumnDays], axes: tuple[Days, Days]) -> Sides | None:
    """Every day by itself, where the reference has few; else None."""
    if len(learned_days(pair[0]).days) >= thresholds.MIN_REFERENCE_DAYS:
        return None
    return _DailyValues.of(pair[0], axes[0], fewest=1), _DailyValues.of(pair[1], axes[1], fewest=1)


def _axis(summaries: DaySummaries) -> Days:
    days = [column.days for column in summaries.values()]
    return np.unique(np.concatenate(days)) if days else np.array([], dtype="datetime64[D]")


# ── one column ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _DailyValues:
    """A column's days on an axis of days; nan where a day has too few rows."""

    rows: Floats
    known: Floats
    missing: Floats
    """A share."""
    mean: Floats
    """Of a number; of a category of two values, the share of the second."""
    variance: Floats
    """Within the day."""
    shares: Floats
    """(days, layout.counted)"""

    @staticmethod
    def of(days: ColumnDays, axis: Days, fewest: int = thresholds.MIN_ROWS) -> _DailyValues:
        """Days of at least so many rows."""
        at, size, layout = np.searchsorted(axis, days.days), len(axis), days.column
        rows, with_value = np.zeros(size), np.zeros(size)
        rows[at], with_value[at] = days.rows, days.known
        missing, mean, variance = (np.full(size, np.nan) for _ in range(3))
        enough = days.rows >= fewest
        missing[at[enough]] = days.missing[enough] / days.rows[enough]
        enough &= days.known >= np.maximum(KNOWN * days.rows, min(fewest, 2))
        place, n = at[enough], days.known[enough]
        steps = days.total[enough] / n
        mean[place] = layout.centre + layout.scale * steps
        unbiased = n / np.maximum(n - 1, 1)
        variance[place] = layout.scale**2 * np.maximum(days.squares[enough] / n - steps**2, 0) * unbiased
        shares = np.full((size, layout.counted), np.nan)
        shares[place] = days.counts[enough] / n[:, None]
        if layout.type == "category" and len(layout.values) == 2:  # as a number that is 0 or 1
            mean[place] = shares[place, 1]
            variance[place] = mean[place] * (1 - mean[place]) * unbiased
        return _DailyValues(rows, with_value, missing, mean, variance, shares)


Sides = tuple[_DailyValues, _DailyValues]
"""Of the reference and of the stream."""


def _of_column(layout: ColumnLayout, sides: Sides, every: Sides | None) -> list[DaySeries]:
    """`every`: all days by themselves, where there are few to compare with."""
    series = (_of_category if layout.type == "category" else _of_number)(layout, sides, every)
    if layout.role == "label":  # a missing label is one that has not come yet
        return series
    before, now = sides
    usual = _average(before.missing, before.rows)
    extreme = extremes.missing(before.missing, now.missing, now.rows, float(before.rows.sum()))
    rows = before.rows, now.rows
    gross = every and _gross_share([(side.missing, side.rows) for side in every], usual)
    of_missing = before.missing, now.missing, rows, _binomial(usual)
    return [*series, DaySeries("missing", *of_missing, extreme=extreme, gross=gross)]


def _gross_share(sides: Sequence[tuple[Floats, Floats]], usual: float) -> GrossTest:
    """Of shares and the rows that they are of: days differ by half as much as rows do."""
    (before, of), (now, rows) = sides
    total = float(of[np.isfinite(before)].sum())
    noise = _binomial((usual * total + 0.5) / (total + 1))
    return GrossTest((before, of), (now, rows), now, noise, noise / 4)


def _of_number(layout: ColumnLayout, sides: Sides, every: Sides | None) -> list[DaySeries]:
    before, now = sides
    if not np.isfinite(before.mean).any():
        return []  # always missing in the reference: only that can change
    weights, within, std = (before.known, now.known), float(np.nanmean(before.variance)), layout.scale * STEPS
    spread_before, spread_now = np.sqrt(before.variance), np.sqrt(now.variance)
    days, outside = int(np.isfinite(before.mean).sum()), now.shares[:, 0] + now.shares[:, -1]
    seen = extremes.Seen(layout.edges[0], layout.edges[-1], days, float(before.known.sum()))
    far = extremes.levels(seen, now.mean, now.variance, outside, now.known)
    if layout.measure:
        far |= extremes.far_days(before.mean, now.mean, before.known, now.known)
    usual = np.array([_average(shares, before.known) for shares in before.shares.T])
    stuck = extremes.stuck(spread_before, usual, spread_now, now.shares, now.known, layout.scale)
    scale = float(np.nanmean(spread_before)) or std
    gross = None
    if every is not None:
        past, each = every
        squares = each.mean**2 + each.variance * (1 - 1 / np.maximum(each.known, 1))
        gross = GrossTest((past.mean, past.known), (each.mean, each.known), squares, within, std**2)
    return [
        DaySeries("mean", before.mean, now.mean, weights, within, std, extreme=far, gross=gross),
        DaySeries("spread", spread_before, spread_now, weights, within / 2, scale, extreme=stuck),
    ]


def _of_category(layout: ColumnLayout, sides: Sides, every: Sides | None) -> list[DaySeries]:
    before, now = sides
    unknown = len(layout.values)
    average = [_average(shares, before.known) for shares in before.shares.T]
    common = [at for at in range(unknown) if average[at] >= thresholds.MIN_SHARE]
    rare = [at for at in range(unknown) if average[at] < thresholds.MIN_SHARE]
    if len(common) == 2 and not rare:
        del common[0]  # of two values that are all there is, one says everything
    groups: list[tuple[str, str | None, list[int]]] = [("share", layout.values[at], [at]) for at in common]
    groups += [("rare", None, rare)] if rare else []
    # of so many values once seen, as many are never seen (Good 1953, Biometrika 40, 237-264)
    rows = float(before.known.sum())
    unseen = float((np.round(np.array(average[:unknown]) * rows) == 1).sum()) / max(rows, 1) if every else 0.0
    is_extreme = extremes.unknown(before.shares[:, unknown], now.shares[:, unknown], now.known, rows, unseen)

    def share(aspect: str, value: str | None, at: list[int]) -> DaySeries:
        usual, gross = sum(average[place] for place in at), None
        if every is not None:
            usual = max(usual, unseen) if aspect == "unknown" else usual
            past, each = (side.shares[:, at].sum(axis=1) for side in every)
            past = np.maximum(past, unseen) if aspect == "unknown" else past
            gross = _gross_share([(past, every[0].known), (each, every[1].known)], usual)
        return DaySeries(
            aspect,
            before.shares[:, at].sum(axis=1),
            now.shares[:, at].sum(axis=1),
            (before.known, now.known),
            _binomial(usual),
            value=value,
            extreme=is_extreme if aspect == "unknown" else None,
            gross=gross,
        )

    return [share(*group) for group in [*groups, ("unknown", None, [unknown])]]


def _average(values: Floats, weights: Floats) -> float:
    usable = np.isfinite(values) & (weights > 0)
    return float(np.average(values[usable], weights=weights[usable])) if usable.any() else 0.0


def _binomial(share: float) -> float:
    return max(share * (1 - share), 0.0)


# ── one column against the others ─────────────────────────────────────────────────────────────────


def _fits(
    layouts: Mapping[str, ColumnLayout], sides: Mapping[str, Sides], extreme: Mapping[str, Bools]
) -> dict[str, DaySeries]:
    """Per column that has a mean: that of each day, less the prediction of a linear regression on the features' means.

    It is fitted on the reference. The residual of a day of the reference is of a regression that has not seen its week:
    a day of the stream is new to it as well. Days on which a feature has no mean, or is extreme, say nothing.
    """
    names = _regressors(layouts, sides)
    days = max((len(before.mean) for before, _ in sides.values()), default=0)
    if not names or days < max(FIT_DAYS, 4 * len(names)):
        return {}
    before, now = (np.column_stack([sides[name][side].mean for name in names]) for side in (0, 1))
    now[np.column_stack([extreme[name] for name in names])] = np.nan
    centre, spread = np.nanmean(before, axis=0), np.nanstd(before, axis=0)
    before, now = (before - centre) / spread, (now - centre) / spread
    noise = np.array([np.nanmean(sides[name][0].variance) for name in names]) / spread**2
    fits: dict[str, DaySeries] = {}
    for name, (old, new) in sides.items():
        others = [at for at, other in enumerate(names) if other != name]
        # without variance within a day it is the day's own, as its weekday: others fit it, it fits none
        fitted = _regress(old.mean, before[:, others]) if np.nansum(old.variance) > 0 else None
        if fitted is None:
            continue
        residual, slopes, certainty = fitted
        within = float(np.nanmean(old.variance))
        by_certainty = sorted(range(len(others)), key=lambda at: -certainty[1 + at])
        fits[name] = DaySeries(
            "fit",
            residual,
            new.mean - slopes[0] - now[:, others] @ slopes[1:],
            (old.known, new.known),
            # the features' means are of so many rows too: their scatter comes through the slopes
            within + float(slopes[1:] ** 2 @ noise[others]),
            float(np.sqrt(within)) if layouts[name].type == "category" else layouts[name].scale * STEPS,
            companions=tuple(names[others[at]] for at in by_certainty[:COMPANIONS]),
        )
    return fits


def _regressors(layouts: Mapping[str, ColumnLayout], sides: Mapping[str, Sides]) -> list[str]:
    """The features that have a mean on nearly all days of the reference, and not always the same."""
    means = {
        name: before.mean
        for name, (before, _) in sides.items()
        if layouts[name].role == "feature" and layouts[name].measure in ("", "truth")
    }
    days = np.isfinite(np.array(list(means.values()))).any(axis=0).sum() if means else 0
    return [
        name for name, mean in means.items() if np.isfinite(mean).sum() >= max(0.95 * days, 1) and np.nanstd(mean) > 0
    ]


def _regress(target: Floats, others: Floats) -> tuple[Floats, Floats, Floats] | None:
    """The residuals, each without its week; intercept and slopes; their certainty. None: there are too few days."""
    x = np.column_stack([np.ones(len(others)), others])
    usable = np.isfinite(target) & np.isfinite(others).all(axis=1)
    if usable.sum() < max(FIT_DAYS, 4 * x.shape[1]):
        return None
    residual = np.full(len(target), np.nan)
    residual[usable], slopes, certainty = _leave_week_out(x[usable], target[usable], np.flatnonzero(usable) // WEEK)
    return residual, slopes, certainty


def _leave_week_out(x: Floats, target: Floats, week: npt.NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Each row's residual when its week is left out of the regression; the slopes of all rows, and their |t| / s.

    With H the projection on x, those of a block B are (1 − H_BB)⁻¹ times the residuals of the whole (Cook & Weisberg,
    Residuals and Influence in Regression, 1982, section 4.2).
    """
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    keep = s > 1e-8 * s[0]
    u, inverse = u[:, keep], vt[keep].T / s[keep]
    residual = target - u @ (u.T @ target)
    out = np.empty_like(residual)
    begins, sizes = np.unique(week, return_index=True, return_counts=True)[1:]
    for size in np.unique(sizes):
        rows = begins[sizes == size][:, None] + np.arange(size)  # (weeks, days): solved together
        blocks = np.eye(size) - u[rows] @ u[rows].transpose(0, 2, 1)
        out[rows] = (np.linalg.pinv(blocks, rcond=1e-8, hermitian=True) @ residual[rows][:, :, None])[:, :, 0]
    slopes = inverse @ (u.T @ target)
    return out, slopes, np.abs(slopes) / np.maximum(np.linalg.norm(inverse, axis=1), 1e-300)
