"""The monitor's pictures: the loss week by week, the evidence of drift day by day, requests and latencies.

Each is a function of a part of var/monitoring/<model>/report.json; the status page shows all three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup

from tasks.ground.words import many
from tasks.pictures import axes, templates
from tasks.pictures.axes import Plane
from tasks.pictures.formatting import Entry, day, days, exponent, interval, loss_name, read_time, short

HEIGHT = 200
"""Of each picture, in its own units."""

LABELLED = 4
"""So many lines of evidence have their name at their end."""


def draw(report: Mapping[str, Any]) -> bytes:
    """An SVG file of the loss and of the evidence of drift, for MLflow and Prefect."""
    data, quality = report["data"], report["quality"]
    drift = evidence(data)
    loss = quality_chart(quality, quality["promised"], ()) if has_quality(quality) else None
    few = "" if loss else ": not enough data, no week has enough predictions yet"
    return templates.stand_alone(
        f"{report['model']}: evidence of drift, and the loss by week",
        (f"Data: {data['status'] if drift else data['text']}", drift or Markup(), HEIGHT if drift else 0),
        (f"{loss_name(quality['loss'])} by week{few}", loss or Markup(), HEIGHT if loss else 0),
        is_bad=data["status"] == "drift",
        notes=["● measured, ○ estimated before labels come, - - promised on the holdout"] if loss else [],
    )


# ── quality ───────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class LossPoint:
    """A loss of a window, and how sure it is."""

    time: datetime
    """The middle of the window."""
    value: float
    low: float
    high: float
    words: str

    @property
    def at(self) -> tuple[datetime, float]:
        """Where it is."""
        return self.time, self.value


def loss_entry(window: Mapping[str, Any], how: str, metric: str) -> Entry | None:
    """A metric of a window as it was `measured` or `estimated`; None where there is no value."""
    entry: Entry | None = (window.get(how) or {}).get(metric) if how == "measured" else window.get(how)
    return entry if entry and entry.get("value") is not None else None


def windows(quality: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The windows of a report, oldest first."""
    return sorted(quality.get("windows") or [], key=lambda window: str(window["until"]))


def has_quality(quality: Mapping[str, Any]) -> bool:
    """Whether any window has a loss to draw."""
    hows = ("measured", "estimated")
    return any(loss_entry(window, how, quality["loss"]) for window in windows(quality) for how in hows)


def quality_chart(
    quality: Mapping[str, Any], promised: Entry | None, changes: Sequence[tuple[datetime, str]]
) -> Markup:
    """A loss over time against the promised one: a filled dot is measured, a hollow one is an estimate.

    `quality` is of a report in which a window has a loss (`has_quality`); `changes` are when other versions went live.
    """
    measured, estimated = (_points(quality, how) for how in ("measured", "estimated"))
    points = [*measured, *estimated]
    limits = [promised[name] for name in ("value", "low", "high") if promised and promised.get(name) is not None]
    values, ends = [point.value for point in points] + limits, [end for p in points for end in (p.low, p.high)]
    times = [point.time for point in points]
    plane = Plane(min(times), max(times), *axes.extent(values, ends))
    words = (
        f"{loss_name(quality['loss'])} over time, lower is better. Promised: {interval(promised)}. "
        f"{_spoken('Measured', measured)} {_spoken('Estimated', estimated)} The table below has all numbers."
    )
    return templates.render(
        "tasks/monitoring/quality.svg",
        plane=plane,
        words=words,
        measured=measured,
        estimated=estimated,
        promised=promised,
        changes=[(time, text) for time, text in changes if plane.since <= time <= plane.until],
    )


def _points(quality: Mapping[str, Any], how: str) -> list[LossPoint]:
    points = []
    for window in windows(quality):
        if entry := loss_entry(window, how, quality["loss"]):
            since, until = read_time(window["since"]), read_time(window["until"])
            words = f"{days(window['since'], window['until'])}: {how} {interval(entry)}"
            low, high = (entry["value"] if entry.get(end) is None else entry[end] for end in ("low", "high"))
            points.append(LossPoint(since + (until - since) / 2, entry["value"], low, high, words))
    return points


def _spoken(how: str, points: Sequence[LossPoint]) -> str:
    if not points:
        return f"{how}: nothing yet."
    low, high = min(points, key=lambda point: point.value), max(points, key=lambda point: point.value)
    last = points[-1].words.replace(f"{how.lower()} ", "")
    return (
        f"{how} in {many(len(points), 'window')}: lowest {short(low.value)} around {day(low.time)}, "
        f"highest {short(high.value)} around {day(high.time)}, last {last}."
    )


# ── drift ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class EvidenceLine:
    """The evidence that a column drifted: log10 after each day, None where there is none."""

    name: str
    values: Sequence[float | None]
    is_drift: bool
    is_slight: bool
    """It drifted beyond doubt, by less than what matters."""

    @property
    def last(self) -> float:
        """After the newest day that has a value."""
        return next((value for value in reversed(self.values) if value is not None), 0.0)

    @property
    def words(self) -> str:
        """As a browser shows it over the line."""
        power = f"{10**self.last:.2g}" if -3 < self.last < 5 else f"10{exponent(self.last)}"
        effect = ", it drifted" if self.is_drift else ", it drifted by less than what matters" if self.is_slight else ""
        return f"{self.name}: evidence {power} to 1{effect}"


def evidence(data: Mapping[str, Any]) -> Markup | None:
    """The evidence of every column over time against the threshold; what is far beyond it lies on the upper edge.

    Returns:
        None where there is nothing to draw.
    """
    history, threshold, lines = data.get("evidence") or {"days": []}, data.get("threshold"), _lines(data)
    if not history["days"] or not lines or threshold is None:
        return None
    values = [value for line in lines for value in line.values if value is not None]
    high = min(max([threshold * 1.5, *values]), threshold * 3) * 1.04
    low = max(min([0.0, *values]), -0.5 * threshold)
    times = [read_time(date) for date in history["days"]]
    plane = Plane(times[0], times[-1], low, high, right=axes.WIDTH - 82)
    ranked = sorted(lines, key=lambda line: (line.is_drift, line.last))
    return templates.render(
        "tasks/monitoring/evidence.svg",
        plane=plane,
        words=_spoken_evidence(times, lines, threshold),
        marks=[(value, f"10{exponent(value)}") for value, _ in plane.marks() if value == int(value)],
        threshold=threshold,
        lines=[(line, plane.path(zip(times, line.values, strict=False))) for line in ranked],
        names=_end_labels(plane, ranked, threshold),
    )


def _lines(data: Mapping[str, Any]) -> list[EvidenceLine]:
    columns = data.get("columns") or []
    drifted = {column["name"] for column in columns if column["status"] == "drift"}
    slight = {column["name"] for column in columns if column.get("slight")}
    history = (data.get("evidence") or {}).get("columns") or {}
    return [
        EvidenceLine(name, values, name in drifted, name in slight)
        for name, values in history.items()
        if any(value is not None for value in values)
    ]


def _end_labels(plane: Plane, ranked: Sequence[EvidenceLine], threshold: float) -> list[tuple[float, str, bool]]:
    """Height, name and whether it drifted, of the lines that are named."""
    named = [line for line in ranked if line.is_drift] or [line for line in ranked if line.is_slight] or ranked[-1:]
    wanted = [(plane.y(line.last), line.name, line.is_drift) for line in named[-LABELLED:]]
    wanted = sorted([*wanted, (plane.y(threshold), "threshold", False)])
    places = axes.spread([y for y, _, _ in wanted], 14, plane.top + 3, plane.bottom)
    return [(y, name, is_drift) for y, (_, name, is_drift) in zip(places, wanted, strict=True)]


def _spoken_evidence(times: Sequence[datetime], lines: Sequence[EvidenceLine], threshold: float) -> str:
    beyond = [line for line in lines if line.is_drift or line.is_slight]
    beyond.sort(key=lambda line: (not line.is_drift, -line.last))
    top = max(lines, key=lambda line: line.last)
    named = ", ".join(
        f"{line.name} with 10 to the {line.last:.1f}{'' if line.is_drift else ', by less than what matters'}"
        for line in beyond
    )
    nearest = f"No column is beyond it; the nearest is {top.name} with 10 to the {top.last:.1f}."
    return (
        f"Evidence of drift after each day, {day(times[0])} to {day(times[-1])}, in powers of ten: "
        f"{many(len(lines), 'column')} against a threshold of 10 to the {threshold:.1f}. "
        f"{f'Beyond it: {named}.' if named else nearest} The table has all."
    )


# ── requests ──────────────────────────────────────────────────────────────────────────────────────


def requests(service: Sequence[Mapping[str, Any]], words: str) -> Markup:
    """Requests a day, and below how long they took: the median, and 99 of 100 below the upper end."""
    daily = [(read_time(entry["day"]), entry) for entry in service]
    timed = [
        (time, entry["p50"], entry.get("p99") or entry["p50"]) for time, entry in daily if entry.get("p50") is not None
    ]
    since, until = min(time for time, _ in daily), max(time for time, _ in daily) + timedelta(days=1)
    most = max([1.0, *(float(entry["requests"]) for _, entry in daily)])
    slowest = max([1.0, *(p99 for _, _, p99 in timed)])
    above = Plane(since, until, 0, most * 1.08, bottom=96)
    below = Plane(since, until, 0, slowest * 1.08, top=116)
    noon = timedelta(hours=12)
    return templates.render(
        "tasks/monitoring/requests.svg",
        words=words,
        above=above,
        below=below,
        width=max((above.x(since + timedelta(days=1)) - above.x(since)) * 0.78, 0.8),
        bars=[(time, float(entry["requests"])) for time, entry in daily],
        spreads=[(below.x(time + noon), time, p50, p99) for time, p50, p99 in timed],
        median=below.path((time + noon, p50) for time, p50, _ in timed),
    )
