"""Moves of columns in words, and the alarms that they are grouped to: one per cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from tasks.modelling.daily_summaries import Role
from tasks.monitoring.drift import thresholds
from tasks.monitoring.drift.episodes import DriftEpisode
from tasks.monitoring.drift.series import DaySeries, WatchedColumn

ROLES: tuple[Role, ...] = ("feature", "prediction", "label")


@dataclass(frozen=True)
class Moved:
    """What moved of a column, in one of its series."""

    column: str
    role: Role
    aspect: str
    effect: float
    """At least 0. Of mean and fit: the change in standard deviations of the reference's rows (Glass's Δ); of spread:
    |now / before − 1|; of shares: their difference."""
    surprise: float
    """The change in standard deviations of the reference's days: what stands out most has the greatest."""
    since: date
    opened: date
    """The day whose rows completed the evidence."""
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
    before those that no longer fit the others. A column that moved several times is listed once."""
    text: str


def moved(column: WatchedColumn, episode: DriftEpisode, days: Sequence[date], unit: str | None) -> Moved:
    """An episode in numbers and words."""
    last = episode.closed if episode.closed is not None else len(days) - 1
    series, layout = episode.series[0], column.layout
    before, now = series.levels(episode.since, last)
    return Moved(
        column=layout.name,
        role=layout.role,
        aspect=series.aspect,
        effect=abs(now - before) / series.scale,
        surprise=max(_surprise(each, episode.since, last) for each in episode.series),
        since=days[episode.since],
        opened=days[episode.opened],
        closed=None if episode.closed is None else days[episode.closed],
        text=f"{layout.name} {_describe(series, before, now, unit)} since {days[episode.since]}",
    )


def _surprise(series: DaySeries, since: int, last: int) -> float:
    """How far days lie from the reference's mean, in standard deviations of its days (root mean square).

    Of features of which one moved, and which no longer fit each other, that one has the greatest: with P the inverse of
    their correlation matrix it is √P_kk for feature k, and |P_jk|/√P_jj ≤ √P_kk for another.
    """
    before, now = series.before[np.isfinite(series.before)], series.now[since : last + 1]
    scatter = float(np.std(before)) if len(before) > 1 else float(np.sqrt(series.noise)) if len(before) else 0.0
    if not scatter:
        return 1e6
    square = float(np.mean((now[np.isfinite(now)] - np.mean(before)) ** 2))
    return min(float(np.sqrt(square)) / scatter, 1e6)


def _describe(series: DaySeries, before: float, now: float, unit: str | None) -> str:
    unit, direction = f" {unit}" if unit else "", "higher" if now > before else "lower"
    effect = f"{abs(now - before) / series.scale:.2f} standard deviations"
    shares = f"in {now:.1%} of rows, before in {before:.1%},"
    texts = {
        "mean": f"is {abs(now - before):.3g}{unit} {direction}, {effect} ({before:.4g} → {now:.4g})",
        "fit": f"is {abs(now):.3g}{unit} {direction} than {' and '.join(series.companions)} go with, {effect},",
        "spread": f"varies {'more' if now > before else 'less'} within a day ({before:.3g} → {now:.3g}{unit})",
        "missing": f"is missing {shares}",
        "unknown": f"has values that training did not know {shares}",
        "rare": f"has rare values {shares}",
        "share": f"is {series.value} {shares}",
    }
    return texts[series.aspect]


def group_alarms(moves: list[Moved]) -> tuple[DriftAlarm, ...]:
    """One alarm per cause, as far as days can tell."""
    groups: list[list[Moved]] = []
    for move in sorted(moves, key=lambda move: (move.opened, ROLES.index(move.role), -move.surprise, move.column)):
        same = next((group for group in groups if _has_same_cause(move, group)), [])
        groups += [] if same else [same]
        same.append(move)
    return tuple(_alarm(group) for group in groups)


def _has_same_cause(move: Moved, group: list[Moved]) -> bool:
    """Whether a column belongs to an alarm that is open when it moves.

    It does if it began to move, or was detected, when another of them was; if it is one of them that moves again; if it
    only no longer fits the others, of which one drifts already; and if all of them only did not fit, so that this may
    be why.
    """
    if not any(other.closed is None or other.closed >= move.opened for other in group):
        return False
    dates = [pair for other in group for pair in ((move.since, other.since), (move.opened, other.opened))]
    together = any(abs((this - that).days) <= thresholds.CAUSE_DAYS for this, that in dates)
    again = any(move.column == other.column for other in group)
    numbers = [other.aspect for other in (move, *group) if other.aspect in ("mean", "spread", "missing", "fit")]
    misfit = move.aspect == "fit" and len(numbers) > 1
    explains = move.aspect in numbers and all(other.aspect == "fit" for other in group)
    return together or again or misfit or explains


def _alarm(group: list[Moved]) -> DriftAlarm:
    # a column that only no longer fits the others may be fine: it is the others that moved
    ranked = sorted(group, key=lambda move: (ROLES.index(move.role), move.aspect == "fit", -move.surprise, move.opened))
    columns = list({move.column: move for move in reversed(ranked)}.values())[::-1]
    ends = [move.closed for move in group if move.closed]
    others = ", ".join(move.column for move in columns[1:])
    return DriftAlarm(
        key=f"{group[0].opened}-{group[0].column}",
        since=min(move.since for move in group),
        opened=group[0].opened,
        closed=max(ends) if len(ends) == len(group) else None,
        moved=tuple(columns),
        text=columns[0].text + (f"; with it moved {others}" if others else ""),
    )
