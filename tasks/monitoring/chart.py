"""The monitor's picture: the evidence of drift day by day, and the loss week by week, with its intervals.

Colours are those of Okabe and Ito (2008), which people with a colour vision deficiency can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

MEASURED, ESTIMATED, PROMISED = "#0072B2", "#E69F00", "#009E73"
LINES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00")
INK, PALE = "#222222", "#C9CCD1"
NAMED = len(LINES)
"""So many columns are named: those with the most evidence."""


def draw(said: Mapping[str, Any]) -> bytes:
    """PNG of a report (report.compose)."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    plain = {**mpl.rcParamsDefault, "text.parse_math": False}  # a class may be named «$5 to $10»
    with mpl.rc_context({**plain, "font.size": 8, "axes.edgecolor": INK, "text.color": INK}):
        figure = Figure(figsize=(11, 6.4), dpi=100, layout="constrained", facecolor="white")
        above, below = figure.subplots(2, 1)
        _drift(above, said["data"])
        _quality(below, said["quality"])
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
            axes.grid(axis="y", color="#ECECEC")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _drift(axes: Any, data: Mapping[str, Any]) -> None:
    axes.set_title(f"data: {data['status']}", loc="left", fontsize=10, fontweight="bold")
    days = [date.fromisoformat(day) for day in data["evidence"]["days"]]
    lines = sorted(data["evidence"]["columns"].items(), key=lambda pair: (-max(pair[1], default=0.0), pair[0]))
    if not days or not lines:
        _empty(axes, data["text"])
        return
    for _, values in lines[NAMED:]:
        axes.plot(days, values, color=PALE, linewidth=0.8)
    for (name, values), color in zip(lines, LINES, strict=False):
        axes.plot(days, values, color=color, linewidth=1.6, label=name)
    axes.axhline(data["threshold"], color=INK, linewidth=1, linestyle="--")
    axes.annotate(
        "enough for an alarm, if the effect matters",
        (days[0], data["threshold"]),
        xytext=(2, 3),
        textcoords="offset points",
        fontsize=8,
    )
    axes.set_ylabel("evidence, powers of ten")
    axes.legend(fontsize=8, frameon=False, ncols=NAMED, loc="upper left", bbox_to_anchor=(0, 1.0))
    highest = max(max(values) for _, values in lines)
    axes.set_ylim(min(-1.0, *(min(values) for _, values in lines)), max(highest, data["threshold"]) * 1.25)


def _quality(axes: Any, quality: Mapping[str, Any]) -> None:
    loss, promised = quality["loss"], quality["promised"]
    axes.set_title(f"{loss} by week", loc="left", fontsize=10, fontweight="bold")
    if promised:
        if "low" in promised:
            axes.axhspan(promised["low"], promised["high"], color=PROMISED, alpha=0.12, linewidth=0)
        axes.axhline(promised["value"], color=PROMISED, linewidth=1.2, label="promised")
    measured = [(week, (week["measured"] or {}).get(loss)) for week in quality["windows"]]
    estimated = [(week, week["estimated"]) for week in quality["windows"]]
    drawn = _points(axes, measured, MEASURED, "measured", -0.6) + _points(axes, estimated, ESTIMATED, "estimated", 0.6)
    if not drawn:
        _empty(axes, "not enough data: no week has enough predictions yet")
        return
    axes.set_ylabel(loss)
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="upper left")
    axes.margins(y=0.2)


def _points(axes: Any, found: list[Any], color: str, name: str, shift: float) -> int:
    from datetime import timedelta

    there = [(week, entry) for week, entry in found if entry]
    if there:
        middle = timedelta(days=3.5 + shift)
        at = [datetime.fromisoformat(week["since"]).replace(tzinfo=None) + middle for week, _ in there]
        values = [entry["value"] for _, entry in there]
        reach = [[entry["value"] - (entry.get("low") or entry["value"]) for _, entry in there]]
        reach += [[(entry.get("high") or entry["value"]) - entry["value"] for _, entry in there]]
        reach = [[max(length, 0.0) for length in side] for side in reach]
        axes.errorbar(at, values, yerr=reach, fmt="o", color=color, markersize=4, linewidth=1.2, label=name)
    return len(there)


def _empty(axes: Any, said: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, said, ha="center", va="center", transform=axes.transAxes, wrap=True)
