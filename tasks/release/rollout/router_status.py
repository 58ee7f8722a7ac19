"""Schema of the router's `GET /status`, for the router and for all who read it.

What an older or a newer router does not say has its default, and what it says beyond this is passed over: while the
platform is upgraded, the two sides differ for a moment.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

State = Literal["starting", "ready", "failed", "draining"]

UNANSWERED, TIMED_OUT = 503, 504

SILENT = "said nothing"
"""Ends the reason of a process that died without a word: killed, perhaps, which is no fault of its release."""

LATE = (UNANSWERED, TIMED_OUT)
"""Statuses of a release that gave no answer, or none in time: which may be the machine's doing."""


class Latency(BaseModel):
    """Histogram of latencies: counts below the first edge, between two, and above the last."""

    edges_ms: list[float] = []
    counts: list[int] = []


class PredictionCounts(BaseModel):
    """Histogram of predictions."""

    edges: list[float] = []
    counts: list[int] = []


class LogStatus(BaseModel):
    """How the prediction log fares."""

    trouble: str | None = None
    lost: int = 0
    """Answers that it could not keep."""


class ReleaseStatus(BaseModel):
    """What the router knows of a release. Counters are of production traffic, since this router began with it."""

    state: State
    role: str = "live"
    why: str | None = None
    """Why its last start failed."""
    starting_s: float | None = 0.0
    """Seconds since its newest process was started; None: none was."""
    startup_s: float | None = None
    """Seconds that a replica took to be ready."""
    waiting: int = 0
    """Requests without an answer yet."""
    stalled: int = 0
    """Replicas that were ended as they stood still."""
    pids: list[int] = []
    answered: int = 0
    refused: int = 0
    errors: int = 0
    late: int = 0
    """Of the errors: no answer, or none in time."""
    failed_alone: int = 0
    """Requests that this canary refused or failed on, and that the live release answered."""
    latency: Latency = Latency()
    predictions: PredictionCounts = PredictionCounts()
    unseen: dict[str, int] = {}
    """Feature → rows with a category that the model never saw."""
    log: LogStatus = LogStatus()


class ModelStatus(BaseModel):
    """What the router does for a model."""

    live: dict[str, Any] | None = None
    beside: list[dict[str, Any]] = []
    canary: dict[str, Any] | None = None
    """These three as in var/serving/<model>.json: what should be."""
    answers: str | None = None
    """The candidate that answers now."""
    releases: dict[str, ReleaseStatus] = {}

    def is_ready(self, candidate: str) -> bool:
        """Whether a release can answer."""
        return candidate in self.releases and self.releases[candidate].state == "ready"


class RouterStatus(BaseModel):
    """The router's process, and what it does for each model."""

    pid: int
    since: str = ""
    shed: int = 0
    """Requests that were rejected with 503."""
    models: dict[str, ModelStatus]
