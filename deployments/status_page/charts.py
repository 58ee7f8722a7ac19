"""The pictures that only the status page has. Each is a template, which says in words what it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from deployments.status_page.parts import fill
from tasks.pictures.axes import WIDTH, Plane
from tasks.pictures.formatting import cut, day

LETTERS = 20  # so much of a partition's name is shown


def progress(value: float | None, limit: float, words: str) -> Markup:
    """A bar to its limit, which is the line; longer than the limit goes on to the edge."""
    share = 0.0 if value is None or limit <= 0 else max(0.0, min(value / limit, 1.25))
    return fill("progress.svg", words=words, edge=WIDTH - 2.0, at=(WIDTH - 2.0) * 0.8, share=share)


@dataclass(frozen=True)
class Event:
    """Something that happened to a model."""

    time: datetime
    lane: str
    kind: str  # yes, no, or none: nothing came of it
    words: str


def timeline(lanes: Sequence[str], events: Sequence[Event], words: str) -> Markup:
    """A lane per kind of event, oldest first; a full dot for yes, a red one for no, a hollow one for nothing."""
    bottom = 8 + 30.0 * len(lanes)
    first, newest = events[0], events[-1]
    return fill(
        "timeline.svg",
        plane=Plane(first.time, newest.time, 0, 1, left=96, top=8, bottom=bottom),
        words=f"From {day(first.time)} to {day(newest.time)}: {words}. The newest: {newest.words}",
        lanes=[(8 + 30.0 * (row + 0.5), lane, [e for e in events if e.lane == lane]) for row, lane in enumerate(lanes)],
    )


def partitions(datasets: Mapping[str, Sequence[tuple[str, bool]]], words: str) -> Markup:
    """A row per dataset with a cell per partition: filled is in the data version, red waits in quarantine."""
    names = sorted({name for cells in datasets.values() for name, _ in cells})
    left = 96.0
    width = min((WIDTH - left - 4) / max(len(names), 1), 30.0)
    places = {name: left + width * column for column, name in enumerate(names)}
    needed = 14 + 6.6 * min(max(map(len, names), default=0), LETTERS)
    every = max(1, math.ceil(needed / width))
    return fill(
        "partitions.svg",
        words=words,
        rows=[(8 + 30.0 * row, name, sorted(cells)) for row, (name, cells) in enumerate(datasets.items())],
        bottom=8 + 30.0 * len(datasets),
        width=width,
        places=places,
        names=[(places[n], cut(n, LETTERS)) for n in names[::every] if places[n] + needed - 14 <= WIDTH],
    )
