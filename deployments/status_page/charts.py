"""The pictures of the status page: SVG made of numbers by small functions. Each says in words what it shows.

A picture is 440 units wide, and as wide as its column on a screen. Colours and sizes are classes
of deployments/status_page/style.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from deployments.status_page.markup import Markup, day, join, many, read_time, short, tag

WIDTH = 440
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

LABELLED = 4
"""So many lines of a picture have their name at their end."""

LETTERS = 20
"""So much of a partition's name is shown."""

MARKS = 6
"""A time axis has at most so many."""


@dataclass(frozen=True)
class Point:
    """A value at a time, and how sure it is."""

    time: datetime
    value: float
    low: float | None = None
    high: float | None = None
    says: str = ""

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; the value itself where there is none."""
        return (
            self.value if self.low is None else self.low,
            self.value if self.high is None else self.high,
        )


@dataclass(frozen=True)
class Plane:
    """Where times and values are in a picture."""

    since: datetime
    until: datetime
    low: float
    high: float
    box: Box

    def x(self, time: datetime) -> float:
        """Units from the left."""
        left, _, right, _ = self.box
        whole = (self.until - self.since).total_seconds()
        return left + (right - left) * ((time - self.since).total_seconds() / whole if whole else 0.5)

    def y(self, value: float) -> float:
        """Units from the top; what is outside lies on the edge."""
        _, top, _, bottom = self.box
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1)
        return bottom - (bottom - top) * share


def picture(height: float, words: str, *inside: Any) -> Markup:
    """An SVG that a screen reader says in words."""
    return tag("svg", *inside, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=" ".join(words.split()))


# ── quality ───────────────────────────────────────────────────────────────────────────────────────


def quality(
    measured: Sequence[Point],
    estimated: Sequence[Point],
    promised: Mapping[str, Any] | None,
    changes: Sequence[tuple[datetime, str]],
    words: str,
) -> Markup:
    """A loss over time against the promised one: a filled dot is measured, a hollow one is an estimate."""
    points = [*measured, *estimated]
    there = [promised[name] for name in ("value", "low", "high") if promised and promised.get(name) is not None]
    low, high = _range([point.value for point in points] + there, [end for point in points for end in point.ends])
    times = [point.time for point in points]
    plane = Plane(min(times), max(times), low, high, (44, 10, WIDTH - 12, 176))
    return picture(
        200,
        words,
        _values(plane),
        _promise(plane, promised),
        _times(plane),
        [_change(plane, when, who) for when, who in changes if plane.since <= when <= plane.until],
        _line(plane, [(point.time, point.value) for point in estimated], "line guess"),
        _line(plane, [(point.time, point.value) for point in measured], "line"),
        [_dot(plane, point, "dot hollow", 2.6, 1.5) for point in estimated],
        [_dot(plane, point, "dot", 3.1, -1.5 if estimated else 0) for point in measured],
    )


def _range(values: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    """What is shown: every value, and of the intervals what does not make the values hard to see."""
    low, high = min(values), max(values)
    room = (high - low) or abs(high) * 0.1 or 1.0
    low, high = min(low, max(min(ends, default=low), low - room)), max(high, min(max(ends, default=high), high + room))
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


def _promise(plane: Plane, promised: Mapping[str, Any] | None) -> Markup:
    if not promised:
        return join()
    left, _, right, _ = plane.box
    value, low, high = promised["value"], promised.get("low"), promised.get("high")
    band = join()
    if low is not None and high is not None:
        top = plane.y(high)
        band = tag("rect", x=left, y=top, width=right - left, height=plane.y(low) - top, class_="promise")
    y = plane.y(value)
    return join(band, tag("line", x1=left, x2=right, y1=y, y2=y, class_="promised"))


def _change(plane: Plane, when: datetime, who: str) -> Markup:
    _, top, _, bottom = plane.box
    x = plane.x(when)
    return tag("line", tag("title", f"{who}, {day(when)}"), x1=x, x2=x, y1=top, y2=bottom, class_="live")


def _dot(plane: Plane, point: Point, kind: str, size: float, aside: float) -> Markup:
    x, (low, high) = plane.x(point.time) + aside, point.ends
    return tag(
        "g",
        tag("title", point.says) if point.says else None,
        tag("line", x1=x, x2=x, y1=plane.y(low), y2=plane.y(high), class_="spread") if low != high else None,
        tag("circle", cx=x, cy=plane.y(point.value), r=size, class_=kind),
    )


# ── drift ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Evidence:
    """How much a column's days say that it moved: log10 after each day, None where there is nothing to say."""

    name: str
    values: Sequence[float | None]
    moved: bool
    slight: bool = False
    """It moved beyond doubt, and by less than what matters."""

    @property
    def last(self) -> float:
        """After the newest day that says something."""
        return next((value for value in reversed(self.values) if value is not None), 0.0)


def evidence(days: Sequence[datetime], columns: Sequence[Evidence], threshold: float, words: str) -> Markup:
    """The evidence of every column over time, against the threshold; what is far beyond it is on the upper edge."""
    known = [value for column in columns for value in column.values if value is not None]
    high = min(max([threshold * 1.5, *known]), threshold * 3) * 1.04
    low = max(min([0.0, *known]), -0.5 * threshold)
    plane = Plane(days[0], days[-1], low, high, (44, 10, WIDTH - 82, 176))
    ranked = sorted(columns, key=lambda one: (one.moved, one.last))
    top = [one for one in ranked if one.moved][-LABELLED:] or [one for one in ranked if one.slight][-LABELLED:]
    top = top or ranked[-1:]
    y, (left, _, right, _) = plane.y(threshold), plane.box
    return picture(
        200,
        words,
        _values(plane, shown=lambda value: f"10{_raised(value)}" if value == int(value) else ""),
        tag("line", x1=left, x2=right, y1=y, y2=y, class_="promised"),
        _times(plane),
        [_evidence_line(plane, days, one) for one in ranked],
        _end_labels(plane, [(one.name, one.last, one.moved) for one in top], ("threshold", threshold)),
    )


def _raised(value: float) -> str:
    return f"{value:.0f}".translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _evidence_line(plane: Plane, days: Sequence[datetime], one: Evidence) -> Markup:
    moved = ", it moved" if one.moved else ", it moved by less than what matters" if one.slight else ""
    said = f"{one.name}: evidence {_power(one.last)}{moved}"
    points = list(zip(days, one.values, strict=False))
    return tag("g", tag("title", said), _line(plane, points, "line moved" if one.moved else "line thin"))


def _power(value: float) -> str:
    return f"{10**value:.2g} to 1" if -3 < value < 5 else f"10{_raised(value)} to 1"


def _end_labels(plane: Plane, ends: list[tuple[str, float, bool]], fixed: tuple[str, float]) -> Markup:
    """Names at the ends of their lines, moved apart where they would lie on each other."""
    apart, (_, top, right, bottom) = 14, plane.box
    wanted = sorted(
        [*((plane.y(value), name, moved) for name, value, moved in ends), (plane.y(fixed[1]), fixed[0], False)]
    )
    places = [max(y, top + 3) for y, _, _ in wanted]
    for at in range(1, len(places)):
        places[at] = max(places[at], places[at - 1] + apart)
    places[-1] = min(places[-1], bottom)
    for at in reversed(range(len(places) - 1)):
        places[at] = min(places[at], places[at + 1] - apart)
    return join(
        tag("text", _cut(name, 13), x=right + 5, y=y + 3.5, class_="moved" if moved else None)
        for y, (_, name, moved) in zip(places, wanted, strict=True)
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


# ── service ───────────────────────────────────────────────────────────────────────────────────────


def service(days: Sequence[Mapping[str, Any]], words: str) -> Markup:
    """Requests a day, and below how long they took: the median, and 99 of 100 below the upper end."""
    times = [read_time(one["day"]) for one in days]
    counts = [float(one["requests"]) for one in days]
    since, until = min(times), max(times) + timedelta(days=1)
    above = Plane(since, until, 0, max([*counts, 1.0]) * 1.08, (44, 10, WIDTH - 12, 96))
    width = max((above.x(since + timedelta(days=1)) - above.x(since)) * 0.78, 0.8)
    bars = [
        tag(
            "rect",
            tag("title", f"{day(time)}: {many(count, 'request')}"),
            x=above.x(time),
            y=above.y(count),
            width=width,
            height=above.y(0) - above.y(count),
            class_="bar",
        )
        for time, count in zip(times, counts, strict=True)
    ]
    return picture(200, words, _values(above, 3), bars, _took(days, times, since, until))


def _took(days: Sequence[Mapping[str, Any]], times: Sequence[datetime], since: datetime, until: datetime) -> Markup:
    known = [
        (time + timedelta(hours=12), one) for time, one in zip(times, days, strict=True) if one.get("p50") is not None
    ]
    slowest = [one.get("p99") or one["p50"] for _, one in known]
    plane = Plane(since, until, 0, max([*slowest, 1.0]) * 1.08, (44, 116, WIDTH - 12, 176))
    spreads = [
        tag(
            "line",
            tag(
                "title",
                f"{day(time)}: median {short(one['p50'])} ms, 99 of 100 below {short(one.get('p99') or one['p50'])} ms",
            ),
            x1=plane.x(time),
            x2=plane.x(time),
            y1=plane.y(one["p50"]),
            y2=plane.y(one.get("p99") or one["p50"]),
            class_="spread",
        )
        for time, one in known
    ]
    line = _line(plane, [(time, one["p50"]) for time, one in known], "line")
    return join(_values(plane, 3, lambda value: f"{short(value)} ms" if value else "0"), _times(plane), spreads, line)


# ── a verdict ─────────────────────────────────────────────────────────────────────────────────────


def verdict(checks: Sequence[Mapping[str, Any]], words: str) -> Markup:
    """Differences of a loss with their intervals: left of 0 is better; the small line is what is allowed."""
    ends = [0.0]
    for check in checks:
        ends += [
            check["value"],
            *(check["interval"] or []),
            *([] if check["threshold"] is None else [check["threshold"]]),
        ]
    low, high = _range([0.0, *(check["value"] for check in checks)], ends)
    left, right, step = 112.0, WIDTH - 56.0, 19.0
    bottom = 8 + step * len(checks)

    def x(value: float) -> float:
        return left + (right - left) * (min(max(value, low), high) - low) / (high - low)

    rows = []
    for at, check in enumerate(checks):
        y = 8 + step * (at + 0.5)
        no = "" if check["passed"] else " no"
        first, last = check["interval"] or (check["value"], check["value"])
        limit = check["threshold"]
        rows.append(
            tag(
                "g",
                tag("title", f"{row_name(check['name'])}: {check['reason']}"),
                tag(
                    "text",
                    _cut(row_name(check["name"]), 17),
                    x=left - 8,
                    y=y + 3.5,
                    text_anchor="end",
                    class_=no.strip() or None,
                ),
                tag("line", x1=x(first), x2=x(last), y1=y, y2=y, class_=f"spread{no}"),
                tag("line", x1=x(limit), x2=x(limit), y1=y - 6, y2=y + 6, class_="limit")
                if limit is not None
                else None,
                tag("circle", cx=x(check["value"]), cy=y, r=3.4, class_=f"dot{no}"),
                tag("text", f"{check['value']:+.3g}", x=right + 6, y=y + 3.5, class_=no.strip() or None),
            )
        )
    zero = tag("line", x1=x(0), x2=x(0), y1=4, y2=bottom + 2, class_="zero")
    foot = tag("text", "← better      worse →", x=x(0), y=bottom + 15, text_anchor="middle")
    return picture(bottom + 20, words, zero, rows, foot)


def row_name(name: str) -> str:
    """A check of a verdict, beside its row."""
    return name.removeprefix("slice:") if name.startswith("slice:") else "all rows"


# ── how near a condition is ───────────────────────────────────────────────────────────────────────


def progress(value: float | None, limit: float, words: str) -> Markup:
    """A bar to its limit, which is the line; longer than the limit goes on to the edge."""
    edge = WIDTH - 2.0
    at = edge * 0.8
    share = 0.0 if value is None or limit <= 0 else max(0.0, min(value / limit, 1.25))
    return picture(
        12,
        words,
        tag("rect", x=0, y=3, width=edge, height=6, rx=3, class_="bar back"),
        tag("rect", x=0, y=3, width=at * share, height=6, rx=3, class_="bar") if share else None,
        tag("line", x1=at, x2=at, y1=0, y2=12, class_="limit"),
    )


# ── what happened ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Happened:
    """One thing that happened."""

    time: datetime
    lane: str
    kind: str
    """yes, no, or none: nothing came of it."""
    says: str


def timeline(lanes: Sequence[str], events: Sequence[Happened], words: str) -> Markup:
    """A lane per kind of thing; a full dot for yes, a red one for no, a hollow one for nothing."""
    step, times = 30.0, [event.time for event in events]
    bottom = 8 + step * len(lanes)
    plane = Plane(min(times), max(times), 0, 1, (96, 8, WIDTH - 12, bottom))
    kinds = {"yes": "dot", "no": "dot no", "none": "dot none"}
    drawn = []
    for at, lane in enumerate(lanes):
        y = 8 + step * (at + 0.5)
        drawn.append(tag("line", x1=96, x2=WIDTH - 12, y1=y, y2=y, class_="grid"))
        drawn.append(tag("text", lane, x=88, y=y + 3.5, text_anchor="end"))
        for event in events:
            if event.lane == lane:
                size = 3.2 if event.kind == "none" else 4.6
                said = tag("title", f"{day(event.time)} {event.time:%H:%M} UTC: {event.says}")
                drawn.append(tag("circle", said, cx=plane.x(event.time), cy=y, r=size, class_=kinds[event.kind]))
    return picture(bottom + 24, words, drawn, _times(plane))


# ── partitions ────────────────────────────────────────────────────────────────────────────────────


def partitions(datasets: Mapping[str, Sequence[tuple[str, bool]]], words: str) -> Markup:
    """A row per dataset with a cell per partition: filled is in the data version, red waits in quarantine."""
    names = sorted({name for cells in datasets.values() for name, _ in cells})
    left, step = 96.0, 30.0
    width = min((WIDTH - left - 4) / max(len(names), 1), 30.0)
    drawn: list[Markup] = []
    for at, (dataset, cells) in enumerate(datasets.items()):
        y = 8 + step * at
        drawn.append(tag("text", _cut(dataset, 14), x=left - 8, y=y + 14.5, text_anchor="end"))
        for name, good in sorted(cells):
            said = tag("title", f"{dataset} {name}: {'in the data version' if good else 'refused, in quarantine'}")
            size = {"width": max(width - 3, 1.0), "height": 20, "rx": min(2.5, width / 4)}
            kind = "bar" if good else "bar no"
            drawn.append(tag("rect", said, x=left + width * names.index(name), y=y, class_=kind, **size))
    bottom = 8 + step * len(datasets)
    needs = 14 + 6.6 * min(max(map(len, names), default=0), LETTERS)
    every = max(1, math.ceil(needs / width))
    places = ((left + width * at, names[at]) for at in range(0, len(names), every))
    drawn += [tag("text", _cut(name, LETTERS), x=x, y=bottom + 8) for x, name in places if x + needs - 14 <= WIDTH]
    return picture(bottom + 14, words, drawn)


# ── axes ──────────────────────────────────────────────────────────────────────────────────────────


def _line(plane: Plane, points: Iterable[tuple[datetime, float | None]], kind: str) -> Markup:
    """A line through what is there; it breaks where a value is None."""
    steps, pen = [], "M"
    for time, value in points:
        if value is None:
            pen = "M"
            continue
        steps.append(f"{pen}{plane.x(time):.1f} {plane.y(value):.1f}")
        pen = "L"
    return tag("path", d="".join(steps), class_=kind) if len(steps) > 1 else join()


def _values(plane: Plane, about: int = 6, shown: Any = short) -> Markup:
    left, _, right, _ = plane.box
    drawn = []
    for value in ticks(plane.low, plane.high, about):
        if text := shown(value):
            y = plane.y(value)
            drawn.append(tag("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
            drawn.append(tag("text", text, x=left - 6, y=y + 3.5, text_anchor="end"))
    return join(drawn)


def _times(plane: Plane) -> Markup:
    *_, bottom = plane.box
    return join(
        tag("text", text, x=plane.x(time), y=bottom + 16, text_anchor="middle")
        for time, text in dates(plane.since, plane.until)
    )


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values from low to high: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    return [round(k * step, 12) + 0.0 for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def dates(since: datetime, until: datetime) -> list[tuple[datetime, str]]:
    """The marks of a time axis, and their texts: months, days or hours."""
    span = until - since
    if span > timedelta(days=70):
        months = list(_months(since, until))
        every = next(n for n in (1, 2, 3, 6, 12, 10_000) if -(-len(months) // n) <= MARKS)
        kept = [time for time in months if (time.month - 1) % every == 0] or months[:1]
        return [(time, f"{time:%b %Y}" if every >= 6 else f"{time:%b}") for time in kept[:MARKS]]
    if span > timedelta(days=2):
        first = since.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=since.hour > 0)
        count = (until - first).days + 1
        every = next(n for n in (1, 2, 7, 14, 28) if -(-count // n) <= MARKS)
        return [(time, day(time)[:-5]) for k in range(0, count, every) if (time := first + timedelta(days=k)) <= until]
    if span < timedelta(minutes=2):
        return [(since + span / 2, f"{since:%H:%M}")]
    seconds = span.total_seconds() / MARKS
    every = next((n for n in (60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800) if n >= seconds), 43200)
    at = math.ceil(since.timestamp() / every) * every
    marks = [datetime.fromtimestamp(at + k * every, UTC) for k in range(MARKS + 1)]
    return [
        (time, day(time)[:-5] if f"{time:%H:%M}" == "00:00" else f"{time:%H:%M}") for time in marks if time <= until
    ]


def _months(since: datetime, until: datetime) -> Iterator[datetime]:
    at = datetime(since.year, since.month, 1, tzinfo=UTC)
    while at <= until:
        if at >= since:
            yield at
        at = at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1)


def key(kind: str) -> Markup:
    """The sign of a line or a dot, for the list below a picture. It is decoration: the text beside it says it."""
    drawn = {
        "measured": [
            tag("line", x1=12, x2=12, y1=1, y2=15, class_="spread"),
            tag("circle", cx=12, cy=8, r=3.6, class_="dot"),
        ],
        "estimated": [
            tag("line", x1=12, x2=12, y1=1, y2=15, class_="spread"),
            tag("circle", cx=12, cy=8, r=3.6, class_="dot hollow"),
        ],
        "promised": [
            tag("rect", x=0, y=2, width=24, height=12, class_="promise"),
            tag("line", x1=0, x2=24, y1=8, y2=8, class_="promised"),
        ],
        "threshold": [tag("line", x1=0, x2=24, y1=8, y2=8, class_="promised")],
        "column": [tag("path", d="M0 11L8 9L16 10L24 6", class_="line thin")],
        "moved": [tag("path", d="M0 13L8 11L16 6L24 2", class_="line moved")],
        "live": [tag("line", x1=12, x2=12, y1=0, y2=16, class_="live")],
        "yes": [tag("circle", cx=12, cy=8, r=4.6, class_="dot")],
        "no": [tag("circle", cx=12, cy=8, r=4.6, class_="dot no")],
        "none": [tag("circle", cx=12, cy=8, r=3.4, class_="dot none")],
        "partition": [tag("rect", x=6, y=2, width=12, height=12, rx=2, class_="bar")],
        "refused": [tag("rect", x=6, y=2, width=12, height=12, rx=2, class_="bar no")],
        "limit": [tag("line", x1=12, x2=12, y1=2, y2=14, class_="limit")],
    }[kind]
    return tag("svg", drawn, viewBox="0 0 24 16", aria_hidden="true")
