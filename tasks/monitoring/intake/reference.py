"""What a release is compared with: the rows that it learned from, and its answers on its holdout.

Read from the folder of a fetched version (`training/`, `evaluation/`). A version that was trained before Evergreen kept
these has less of them; `lacking` says what is missing, and what follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files

if TYPE_CHECKING:
    import pandas as pd

    from tasks.modelling.daily_summaries import ColumnLayout, DaySummaries


@dataclass(frozen=True)
class Reference:
    """Of one release."""

    candidate: str
    folder: Path

    @property
    def holdout_file(self) -> Path:
        """Where `holdout` is, if it was kept."""
        return self.folder / "evaluation" / "predictions.parquet"

    @cached_property
    def holdout(self) -> pd.DataFrame | None:
        """id, time, label, slice columns and predictions of rows that it has not learned from; None: not kept."""
        import pandas as pd

        return pd.read_parquet(self.holdout_file) if self.holdout_file.exists() else None

    @cached_property
    def profile(self) -> dict[str, Any]:
        """The reference profile, with the prediction columns of the holdout."""
        from tasks.modelling import metrics, profile

        learned: dict[str, Any] = files.read_json(self.folder / "training" / "profile.json")
        if self.holdout is None:
            return learned
        predictions = metrics.scores_of(self.holdout)
        return {**learned, "predictions": {name: profile.number(predictions[name]) for name in predictions}}

    @property
    def lacking(self) -> str:
        """What was not kept of it, and what follows; empty where all was kept."""
        if not (self.folder / "training" / "reference.parquet").exists():
            return "it was trained before Evergreen kept the days of training rows: drift cannot be detected"
        if self.holdout is None:
            return "it was trained before Evergreen kept its answers on the holdout: its promised quality is not known"
        return ""

    def days(self, layouts: Mapping[str, ColumnLayout]) -> DaySummaries:
        """The reference's days: of features and label those of the training rows, of predictions the holdout's.

        Predictions for rows that a model has learned from are better than those it will make.
        """
        from tasks.modelling import daily_summaries

        path = self.folder / "training" / "reference.parquet"
        if not path.exists():
            return {}
        learned = daily_summaries.from_bytes(path.read_bytes(), layouts)
        of_predictions = {name: layout for name, layout in layouts.items() if layout.role == "prediction"}
        if self.holdout is None or not of_predictions:
            return learned
        return {**learned, **daily_summaries.summarise(self.holdout, of_predictions)}
