"""What a release is held against: what it learned from, and what it answered on its holdout.

Read from the folder in which a version was brought back (`training/`, `evaluation/`). A version that was trained before
Evergreen kept these has less of them; `lacking` says what, and what cannot be said for that reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files
from tasks.monitoring.intake import intake

if TYPE_CHECKING:
    import pandas as pd

    from tasks.modelling.daily_summaries import ColumnLayout, DaySummaries


@dataclass(frozen=True)
class Reference:
    """Of one release."""

    candidate: str
    folder: Path

    @cached_property
    def holdout(self) -> pd.DataFrame | None:
        """id, time, label, slice columns and predictions of rows that it has not learned from; None: not kept."""
        import pandas as pd

        path = self.folder / "evaluation" / "predictions.parquet"
        return pd.read_parquet(path) if path.exists() else None

    @cached_property
    def profile(self) -> dict[str, Any]:
        """The reference profile, with the prediction columns of the holdout."""
        from tasks.modelling import profile

        said: dict[str, Any] = files.read_json(self.folder / "training" / "profile.json")
        if self.holdout is None:
            return said
        predictions = intake.predictions_of(self.holdout)
        return {**said, "predictions": {name: profile.number(predictions[name]) for name in predictions}}

    @property
    def lacking(self) -> str:
        """What was not kept of it, and what follows; empty where nothing lacks."""
        if not (self.folder / "training" / "reference.parquet").exists():
            return "it was trained before Evergreen kept the days of training rows: drift cannot be told"
        if self.holdout is None:
            return "it was trained before Evergreen kept its answers on the holdout: what it promised is not known"
        return ""

    def days(self, wanted: Mapping[str, ColumnLayout]) -> DaySummaries:
        """The reference's days: of features and label those of the training rows, of predictions the holdout's.

        Predictions for rows that a model has learned from are better than those it will make.
        """
        from tasks.modelling import daily_summaries

        path = self.folder / "training" / "reference.parquet"
        if not path.exists():
            return {}
        learned = daily_summaries.from_bytes(path.read_bytes(), wanted)
        answered = {name: column for name, column in wanted.items() if column.role == "prediction"}
        if self.holdout is None or not answered:
            return learned
        return {**learned, **daily_summaries.summarise(self.holdout, answered)}
