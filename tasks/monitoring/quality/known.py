"""What is known of the quality of the live release, in a word and a sentence; also where labels never come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tasks.monitoring.quality.degradation import HoldoutLosses

Status = Literal["no release", "no requests", "no labels", "few labels", "measured"]


def known(loss: str, weeks: Sequence[Mapping[str, Any]], candidate: str | None) -> tuple[Status, str]:
    """How far quality is known, and in words.

    Args:
        loss: the gate's.
        weeks: as report.json has them, oldest first.
        candidate: the live one.
    """
    if candidate is None:
        return "no release", "no release is live"
    own = [(str(week["since"])[:10], week["releases"][candidate]) for week in weeks if candidate in week["releases"]]
    rows, labels = (sum(part[name] for _, part in own) for name in ("rows", "labels"))
    if not rows:
        return "no requests", "no answer of the live release is counted yet: a day counts when it is over"
    estimate = _newest(own, lambda part: part["estimated"])
    if not labels:
        watched = "drift and service are watched; quality is " + (
            f"estimated: {loss} {_interval(estimate)}" if estimate else "not known"
        )
        return (
            "no labels",
            f"no label has come for any of {rows:,} predictions since the week of {own[0][0]}: {watched}",
        )
    share = f"{labels:,} of {rows:,} predictions have a label"
    if measured := _newest(own, lambda part: (part["measured"] or {}).get(loss)):
        return "measured", f"{share}; {loss} is {_interval(measured)}"
    from tasks.monitoring.quality import quality

    few = f"no week has the {quality.FEWEST_ROWS} that a week's {loss} takes; alarms are of all labels together"
    return "few labels", f"{share}; {few}"


def _newest(own: Sequence[tuple[str, Any]], entry_of: Any) -> tuple[str, Mapping[str, float]] | None:
    """The newest week of which something is known, and that."""
    entries = [(week, entry) for week, part in own if (entry := entry_of(part))]
    return entries[-1] if entries else None


def _interval(newest: tuple[str, Mapping[str, float]]) -> str:
    week, entry = newest
    ends = f" ({entry['low']:.4g} to {entry['high']:.4g})" if "low" in entry else ""
    return f"{entry['value']:.4g}{ends} in the week of {week}"


def basis(
    loss: str, rows: int, promised: Mapping[str, float] | None, holdout: HoldoutLosses | None, *, undated: bool = False
) -> str:
    """What a promise of few data rests on, and what would be told; empty where a month of days says how days differ.

    Args:
        loss: the gate's.
        rows: of the holdout that have a label.
        promised: {value, low, high}, or None.
        holdout: the same by day.
        undated: whether its rows have no time.
    """
    import numpy as np

    from tasks.monitoring.quality import degradation, quality

    if promised is None or holdout is None:
        few = f"has {rows} rows with a label, a promise takes {quality.FEWEST_ROWS}"
        return "nothing was promised: the holdout " + (few if rows < quality.FEWEST_ROWS else f"offers no {loss}")
    days = len(holdout.means)
    if days >= degradation.MANY:
        return ""
    of = "without a time" if undated else f"of {days} day{'' if days == 1 else 's'}"
    most = float(holdout.bound()) + float(holdout.rare(np.array(promised["value"])))
    return (
        f"the promise rests on {rows:,} rows {of}: how days differ is assumed, so a mean {loss} that stays above "
        f"about {most:.3g} is told, and any day that is far above it"
    )
