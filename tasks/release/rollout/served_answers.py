"""Served answers beside the same rows scored offline: a release must answer what its evaluation would say.

On the one side are a request, a replica, a batch, and JSON; on the other a frame and the model file, as the gate asked
it. Both are computed, so neither chance nor the traffic's mix changes anything: one value that differs is a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.release import comparison
from tasks.release.gate.verdict import Check
from tasks.release.package import package

MOST_ROWS = 5000
"""Rows that are compared at once."""


@dataclass
class OwnAnswers:
    """A release's served answers, compared with what its model says of the same rows."""

    model: str
    release: Path
    """The release's folder."""
    rows: int = 0
    """Rows that were compared."""
    differing: int = 0
    """Values that differ."""
    first: str = ""
    """The first of them, with both values."""
    unjudged: str = ""
    """Why nothing is compared: the model cannot be scored here, as it was evaluated."""

    def compare(self, rows: list[dict[str, Any]], answers: list[dict[str, Any]]) -> None:
        """Score rows, and compare each with its answer (without its id)."""
        rows, answers = rows[:MOST_ROWS], answers[:MOST_ROWS]
        if not rows or self.unjudged:
            return
        try:
            scored = self._scorer(comparison.request_frame(self._facts, rows))
        except comparison.UNSCORABLE as error:
            self.unjudged = f"{type(error).__name__}: {error}"
            return
        scored.index = [f"row {self.rows + number}" for number in range(1, len(rows) + 1)]
        differing = package.differences(scored, answers, package.tolerance(self._facts))
        self.rows += len(rows)
        self.differing += len(differing)
        self.first = self.first or (differing[0] if differing else "")

    def check(self) -> Check:
        """Whether all are the same."""
        if self.unjudged:
            reason = f"not judged, as its model cannot be scored here as it was evaluated: {self.unjudged}"
        elif self.differing:
            reason = f"{self.differing} values of {self.rows:,} rows are not what its model says of them; {self.first}"
        else:
            reason = f"{self.rows:,} rows are answered exactly as its model says"
        return Check("answers", float(self.differing), 0.0, not self.differing, reason)

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return package.release_facts(self.release)

    @cached_property
    def _scorer(self) -> Callable[[pd.DataFrame], pd.DataFrame]:
        """What scores rows; only where it gives the golden rows what they were evaluated to."""
        return comparison.golden_scorer(self.model, self.release)[0]
