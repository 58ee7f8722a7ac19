"""Appraisal of predictions: every metric with its interval, overall and per slice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tasks.ground import numbers, params
from tasks.runtime import answer_columns

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

CONFIDENCE = 0.95
"""Of every interval of the evaluation. The gate has its own, in params.yaml."""

SEED = 0

Scores = dict[str, dict[str, float]]
"""Metric → {value, low, high}."""


@dataclass(frozen=True)
class Appraisal:
    """The scores of some predictions."""

    task: str
    rows: pd.DataFrame
    """Label, time and the slice columns of the holdout."""
    predictions: pd.DataFrame
    blocks: npt.NDArray[np.int64]
    """The day of each row: what is resampled as a whole."""
    by_day: bool
    overall: Scores
    baseline: dict[str, float]
    slices: dict[str, dict[str, dict[str, Any]]]
    """Column → value → {rows, days, metrics}."""

    @property
    def days(self) -> int:
        """The number of days in the holdout."""
        return int(self.rows["time"].dt.normalize().nunique())

    def of_output(self, output: str) -> Appraisal:
        """The scores of one of several labels."""
        from tasks.modelling import metrics

        own = [column for column in self.rows if column not in answer_columns.labels(self.rows.columns)]
        rows = self.rows[own].assign(label=self.rows[answer_columns.column(output, "label")])
        names = {name: short for name in self.overall if (short := name.removesuffix(f":{output}")) != name}
        overall = {short: self.overall[name] for name, short in names.items()}
        baseline = {short: self.baseline[name] for name, short in names.items() if name in self.baseline}
        predictions = metrics.of_output(self.predictions, output)
        return replace(self, rows=rows, predictions=predictions, overall=overall, baseline=baseline)

    def metrics(self) -> dict[str, Any]:
        """metrics.json: few and flat, for `dvc metrics show` and `dvc metrics diff`."""
        from tasks.modelling.metrics import headline

        first = headline(self.task)
        values: dict[str, Any] = {metric: entry["value"] for metric, entry in self.overall.items()}
        return dict(_rounded({**values, "baseline": {first: self.baseline[first]}, "rows": len(self.rows)}))

    def details(self, importance: pd.DataFrame | None = None) -> dict[str, Any]:
        """slices.json: every metric with its interval, overall and per slice; the baseline; the importances."""
        overall = {"rows": len(self.rows), "days": self.days, "metrics": self.overall}
        details = {
            "confidence": CONFIDENCE,
            "resampled": "day" if self.by_day else "row",
            "overall": overall,
            "baseline": {metric: value for metric, value in self.baseline.items() if metric in self.overall},
            "slices": self.slices,
            "importance": {} if importance is None else _importances(importance),
        }
        return dict(_rounded(details))


def appraise(
    task: str,
    holdout: pd.DataFrame,
    predictions: pd.DataFrame,
    baseline: dict[str, float],
    wanted: params.Evaluate,
    *,
    by_row: bool = False,
    cost: str | None = None,
    weights: npt.NDArray[np.float64] | None = None,
) -> Appraisal:
    """Score predictions, overall and per slice, each metric with its interval.

    `holdout` has label, time, and the columns of `wanted.slices`; `baseline` has the metrics of the trivial baseline on
    the same rows. Days are resampled, or rows. `cost` and `weights` are as `metrics.score` has them.
    """
    import numpy as np

    from tasks.modelling import metrics

    label = metrics.label_of(holdout)
    blocks = metrics.row_blocks(len(holdout)) if by_row else metrics.day_blocks(holdout["time"])

    def measured(members: Any) -> Scores:
        return metrics.score_with_intervals(
            task,
            label.iloc[members],
            predictions.iloc[members],
            blocks[members],
            resamples=wanted.resamples,
            seed=SEED,
            confidence=CONFIDENCE,
            cost=cost,
            weights=None if weights is None else weights[members],
        )

    slices: dict[str, dict[str, dict[str, Any]]] = {}
    days = holdout["time"].dt.normalize()
    for column in wanted.slices:
        names = metrics.slice_names(holdout[column])
        slices[column] = {}
        for value, members in sorted(names.groupby(names).indices.items()):
            counts = {"rows": len(members), "days": int(days.iloc[members].nunique())}
            slices[column][str(value)] = {**counts, "metrics": measured(members)}
    kept = holdout[list(dict.fromkeys([*answer_columns.labels(holdout.columns), "time", *wanted.slices]))]
    overall = measured(np.arange(len(holdout)))
    return Appraisal(task, kept, predictions, blocks, not by_row, overall, baseline, slices)


def _importances(importance: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Feature → {value, low, high}; low and high where there are any."""
    table = importance.rename(columns={"importance": "value"}).set_index("feature")[["value", "low", "high"]]
    return {str(feature): {str(k): float(v) for k, v in row.dropna().items()} for feature, row in table.iterrows()}


def _rounded(value: Any) -> Any:
    """Numbers to nine digits: further ones are of the machine, not of the model."""
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return numbers.short(value) if isinstance(value, float) else value
