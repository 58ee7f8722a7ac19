"""Report of a rollout: each stage with its result, the numbers, where predictions move, and a picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.release.gate.verdict import Check, cell, mark
from tasks.release.registry.desired_state import ReleaseRef
from tasks.release.rollout.canary import Watch
from tasks.release.rollout.paired_answers import FEWEST, number_of
from tasks.release.rollout.shadow_replay import QUANTILES, Latencies, Replayed
from tasks.release.rollout.stages import StageResult

LIVE, CANDIDATE = "#8a8f98", "#2f7f79"
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
    release: ReleaseRef
    live: ReleaseRef | None
    """The release that was live while this one was tried."""
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
    """The page; `image` is where its picture is, if there is one."""
    what = "withdrawn" if record.failed else "rolled out"
    title = f"version {record.release.version} (`{record.release.candidate}`) {what}"
    lines = [f"# {mark(not record.failed)} {record.model}: {title}", "", f"{cell(record.end)}.", ""]
    lines += ["| | stage | result | seconds |", "| --- | --- | --- | ---: |"]
    for stage in record.stages:
        result = stage.result
        lines.append(f"| {mark(result.passed)} | {stage.name} | {cell(result.message)} | {stage.seconds:.1f} |")
    if image:
        lines += ["", f"![the live release and the candidate]({image})"]
    for stage in record.stages:
        if stage.result.checks:
            lines += ["", f"## {stage.name}", "", *_checks(stage.result.checks)]
    if record.replayed and record.replayed.rows:
        lines += _slices(record.replayed)
    return "\n".join(lines) + "\n"


def _checks(checks: tuple[Check, ...]) -> list[str]:
    lines = ["| | check | at most | measured |", "| --- | --- | ---: | --- |"]
    for check in checks:
        limit = "" if check.threshold is None else f"{check.threshold:.4g}"
        lines.append(f"| {mark(check.passed)} | {check.name} | {limit} | {cell(check.reason)} |")
    return lines


def _slices(replayed: Replayed) -> list[str]:
    slices = replayed.slices()
    if not slices:
        return []
    number = number_of(replayed.task)
    unit = number if replayed.task == "classification" else f"share of the mean {number}"
    hidden = len(slices) - MOST_SLICES
    more = f"{hidden} slices that move less are not shown; those" if hidden > 0 else "Those"
    return [
        *("", "## where predictions move most", ""),
        f"| feature | value | rows | moves by ({unit}) | of that up or down |",
        "| --- | --- | ---: | ---: | ---: |",
        *(
            f"| {s.feature} | {cell(s.value)} | {s.rows:,} | {s.moved:.4f} | {s.shift:+.4f} |"
            for s in slices[:MOST_SLICES]
        ),
        *("", f"{more} with fewer than {FEWEST} rows are left out."),
    ]


# ── the picture ───────────────────────────────────────────────────────────────────────────────────


def picture(record: RolloutRecord) -> bytes | None:
    """Predictions of both, one against the other, and how long they took, as PNG; None where nothing was replayed."""
    from io import BytesIO

    from matplotlib.figure import Figure

    replayed = record.replayed
    if replayed is None or not replayed.live_ms:
        return None
    figure = Figure(figsize=(11, 3.9), dpi=110, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.15, 1, 0.9])
    if replayed.rows:
        _histogram(left, replayed)
        _scatter(middle, replayed)
    else:
        _empty(left, "the candidate answered nothing")
        _empty(middle, "")
    _latencies(right, replayed, record.watched)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.set_axisbelow(True)
    title = f"{record.model}: version {record.release.version} is {'withdrawn' if record.failed else 'live'}"
    if record.live:
        title += f", version {record.live.version} {'stays live' if record.failed else 'is on standby'}"
    color = BAD if record.failed else GOOD
    figure.suptitle(title, x=0.008, ha="left", fontsize=11, fontweight="bold", color=color)
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _histogram(axes: Any, replayed: Replayed) -> None:
    both = np.array([replayed.live, replayed.candidate])
    bins = np.linspace(0, 1, 26) if replayed.task == "classification" else np.histogram_bin_edges(both, 25)
    axes.hist(both[0], bins, color=LIVE, alpha=0.45, label="live release")
    axes.hist(both[1], bins, histtype="step", color=CANDIDATE, linewidth=1.8, label="candidate")
    axes.legend(fontsize=8, frameon=False)
    _label(axes, f"predictions, {len(replayed.rows):,} rows", number_of(replayed.task), "rows")


def _scatter(axes: Any, replayed: Replayed) -> None:
    step = -(-len(replayed.rows) // MOST_POINTS)
    before, after = replayed.live[::step], replayed.candidate[::step]
    low, high = min(*before, *after), max(*before, *after)
    axes.plot([low, high], [low, high], color=QUIET, linewidth=1)
    axes.scatter(before, after, s=9, color=CANDIDATE, alpha=0.45, linewidths=0)
    _label(axes, f"row by row: moves by {replayed.moved or 0:.4f}", "live release", "candidate")


def _latencies(axes: Any, replayed: Replayed, watch: Watch | None) -> None:
    sources: list[tuple[str, Latencies, Latencies]] = [("replay", replayed.live_ms, replayed.candidate_ms)]
    if watch:
        sources.append(("canary", watch.live, watch.canary))
    groups = [
        (f"{source}\n{name}", side_by_side)
        for source, *sides in sources
        for name, share in QUANTILES.items()
        if None not in (side_by_side := [side.quantile_ms(share) for side in sides])
    ]
    places = np.arange(len(groups))
    for i, (shift, color, name) in enumerate(((-0.19, LIVE, "live release"), (0.19, CANDIDATE, "candidate"))):
        bars = axes.bar(places + shift, [ms[i] for _, ms in groups], 0.36, color=color, label=name)
        axes.bar_label(bars, fmt="%.3g", fontsize=7, color="#333333", padding=1)
    axes.set_xticks(places, [group for group, _ in groups], fontsize=8)
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
