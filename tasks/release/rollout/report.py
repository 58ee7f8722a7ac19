"""Report of a rollout: each stage with its result, the numbers, where predictions move, and a picture."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.release.gate.verdict import Check
from tasks.release.registry.desired_state import ReleaseRef
from tasks.release.rollout.canary import Watch
from tasks.release.rollout.paired_answers import FEWEST
from tasks.release.rollout.shadow_replay import Replayed, p99
from tasks.release.rollout.stages import StageResult

CHAMPION, CHALLENGER = "#8a8f98", "#2f7f79"
GOOD, BAD, QUIET = "#2f7f79", "#c8452f", "#8a8f98"

MOST_SLICES = 10
"""Of the slices, those where predictions move most."""

MOST_POINTS = 3000
"""In the scatter plot; more only take time."""


@dataclass(frozen=True)
class StageRecord:
    """A stage as it ended."""

    name: str
    result: StageResult
    seconds: float


@dataclass
class RolloutRecord:
    """What a rollout has done until now."""

    model: str
    challenger: ReleaseRef
    champion: ReleaseRef | None
    """The release that was live while the challenger was tried."""
    stages: list[StageRecord] = field(default_factory=list)
    end: str = ""
    """How it ended, in a sentence."""

    @property
    def failed(self) -> StageRecord | None:
        """The stage that failed."""
        return next((stage for stage in self.stages if stage.result.passed is False), None)

    @property
    def replayed(self) -> Replayed | None:
        """What the replay measured, if there was one."""
        return next((s.result.evidence for s in self.stages if isinstance(s.result.evidence, Replayed)), None)

    @property
    def watched(self) -> Watch | None:
        """What the canary's watch measured, if there was one."""
        return next((s.result.evidence for s in self.stages if isinstance(s.result.evidence, Watch)), None)


# ── the page ──────────────────────────────────────────────────────────────────────────────────────


def markdown(record: RolloutRecord, image: str = "") -> str:
    """The page; `image` is where its picture is."""
    what = "withdrawn" if record.failed else "rolled out"
    title = f"version {record.challenger.version} (`{record.challenger.candidate}`) {what}"
    lines = [f"# {_mark(not record.failed)} {record.model}: {title}", "", f"{_cell(record.end)}.", ""]
    lines += ["| | stage | result | seconds |", "| --- | --- | --- | ---: |"]
    for stage in record.stages:
        result = stage.result
        lines.append(f"| {_mark(result.passed)} | {stage.name} | {_cell(result.message)} | {stage.seconds:.1f} |")
    if image and has_picture(record):
        lines += ["", f"![champion and challenger]({image})"]
    for stage in record.stages:
        if stage.result.checks:
            lines += ["", f"## {stage.name}", "", *_checks(stage.result.checks)]
    if record.replayed and (slices := record.replayed.slices()):
        lines += ["", "## where predictions move most", "", *_slices(record.replayed, slices)]
    return "\n".join(lines) + "\n"


def _checks(checks: tuple[Check, ...]) -> list[str]:
    rows = [f"| {_mark(c.passed)} | {c.name} | {_number(c.threshold)} | {_cell(c.reason)} |" for c in checks]
    return ["| | check | at most | measured |", "| --- | --- | ---: | --- |", *rows]


def _slices(replayed: Replayed, slices: list[Any]) -> list[str]:
    unit = "share of the mean prediction" if replayed.task == "regression" else "probability"
    rows = [
        f"| {s.feature} | {_cell(s.value)} | {s.rows:,} | {s.moved:.4f} | {s.shift:+.4f} |"
        for s in slices[:MOST_SLICES]
    ]
    more = (
        f"{len(slices) - MOST_SLICES} slices that move less are not shown; those" if slices[MOST_SLICES:] else "Those"
    )
    return [
        f"| feature | value | rows | moves by ({unit}) | of that up or down |",
        "| --- | --- | ---: | ---: | ---: |",
        *rows,
        "",
        f"{more} with fewer than {FEWEST} rows are left out.",
    ]


def _mark(passed: bool | None) -> str:
    return "–" if passed is None else "✓" if passed else "✗"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


# ── the picture ───────────────────────────────────────────────────────────────────────────────────


def has_picture(record: RolloutRecord) -> bool:
    """Whether there is anything to draw: that takes a replay."""
    return bool(record.replayed and record.replayed.champion_ms)


def picture(record: RolloutRecord) -> bytes:
    """Predictions of both, one against the other, and how long they took, as PNG."""
    from io import BytesIO

    from matplotlib.figure import Figure

    replayed = record.replayed
    assert replayed is not None
    figure = Figure(figsize=(11, 3.9), dpi=110, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.15, 1, 0.9])
    _histogram(left, replayed)
    _scatter(middle, replayed)
    _latencies(right, replayed, record.watched)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_axisbelow(True)
    title = f"{record.model}: version {record.challenger.version} is {'withdrawn' if record.failed else 'live'}"
    if record.champion:
        title += f", version {record.champion.version} {'stays live' if record.failed else 'is on standby'}"
    color = BAD if record.failed else GOOD
    figure.suptitle(title, x=0.008, ha="left", fontsize=11, fontweight="bold", color=color)
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _histogram(axes: Any, replayed: Replayed) -> None:
    if not replayed.rows:
        _empty(axes, "the challenger answered nothing")
        return
    both = np.array([replayed.champion, replayed.challenger])
    bins = np.linspace(0, 1, 26) if replayed.task == "classification" else np.histogram_bin_edges(both, 25)
    axes.hist(both[0], bins, color=CHAMPION, alpha=0.45, label="champion")
    axes.hist(both[1], bins, histtype="step", color=CHALLENGER, linewidth=1.8, label="challenger")
    axes.legend(fontsize=8, frameon=False)
    what = "prediction" if replayed.task == "regression" else "probability"
    _label(axes, f"predictions, {len(replayed.rows):,} rows", what, "rows")


def _scatter(axes: Any, replayed: Replayed) -> None:
    if not replayed.rows:
        _empty(axes, "")
        return
    step = -(-len(replayed.rows) // MOST_POINTS)
    before, after = replayed.champion[::step], replayed.challenger[::step]
    low, high = min(*before, *after), max(*before, *after)
    axes.plot([low, high], [low, high], color=QUIET, linewidth=1)
    axes.scatter(before, after, s=9, color=CHALLENGER, alpha=0.45, linewidths=0)
    _label(axes, f"row by row: moves by {replayed.moved or 0:.4f}", "champion", "challenger")


def _latencies(axes: Any, replayed: Replayed, watch: Watch | None) -> None:
    groups = [
        ("replay\nmedian", statistics.median(replayed.champion_ms), statistics.median(replayed.challenger_ms)),
        ("replay\np99", p99(replayed.champion_ms), p99(replayed.challenger_ms)),
    ]
    if watch:
        seen = [(share, watch.live.quantile_ms(share), watch.canary.quantile_ms(share)) for share in (0.5, 0.99)]
        names = {0.5: "canary\nmedian", 0.99: "canary\np99"}
        groups += [(names[share], live, own) for share, live, own in seen if live is not None and own is not None]
    places = np.arange(len(groups))
    for shift, number, color, name in ((-0.19, 1, CHAMPION, "champion"), (0.19, 2, CHALLENGER, "challenger")):
        bars = axes.bar(places + shift, [group[number] for group in groups], 0.36, color=color, label=name)
        axes.bar_label(bars, fmt="%.3g", fontsize=7, color="#333333", padding=1)
    axes.set_xticks(places, [group[0] for group in groups], fontsize=8)
    axes.margins(y=0.15)
    _label(axes, "latency", "", "ms")


def _label(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)


def _empty(axes: Any, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, color=QUIET, transform=axes.transAxes)
