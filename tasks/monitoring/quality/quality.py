"""Quality of the predictions of production: measured where labels came, estimated where they did not yet.

Measured is what training measures, with intervals over days. The estimate is the loss that predictions like these had
on the holdout: E[loss | prediction], a line through a few knots, averaged over the window (CBPE and DLE in NannyML;
Guillory et al. 2021, arXiv:2107.03315). Its interval is a prediction interval for the mean loss of the window: scatter
is measured in blocks as long as the window, cut from all days whose labels are known, and by the errors of earlier
releases' estimates. Equal predictions give equal estimates: that their labels mean something else now shows when labels
come (`off`). Why it is so: docs/decisions/estimated-quality.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground import numbers
from tasks.modelling import metrics
from tasks.runtime import answer_columns

Floats = npt.NDArray[np.float64]
Scores = dict[str, dict[str, float]]
"""Metric → {value, low, high}."""

FEWEST_DAYS = 3
FEWEST_ROWS = 30
"""Fewer rows are «not enough data»; of fewer days there is no interval."""

FEWEST_BLOCKS = 3
"""An estimate needs so many blocks of labelled days, each as long as the window."""

KNOTS = 10
ROWS_PER_KNOT = 100
FADES = 0.9
"""The weight of a block, as a share of that of the next newer one."""

MOSTLY = 0.8
"""A window is compared with its estimate when so much of it has labels (some rows never get one)."""


# ── measured ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Measured:
    """The measured quality of predictions."""

    loss: str
    """Which loss is compared with estimates."""
    rows: int
    labels: int
    """How many of the rows have a label; of several, all of them."""
    days: int
    """How many days these are of."""
    metrics: Scores
    """Every training metric, and the mean of `loss` under its own name; empty: not enough data."""
    slices: dict[str, dict[str, dict[str, Any]]]
    """Column → value → {rows, days, metrics}; metrics are empty where there is not enough data."""
    each: dict[str, int] = field(default_factory=dict)
    """Of several labels: how many rows have each."""

    @property
    def of_loss(self) -> dict[str, float] | None:
        """The mean loss: {value, low, high}; None where there is not enough data."""
        return self.metrics.get(self.loss)

    @property
    def text(self) -> str:
        """In words."""
        if (entry := self.of_loss) is None:
            if (alerts := self.metrics.get("alert_rate")) is not None:
                known = f"{self.labels:,} rows have a label, which must be of anomalies and of others"
                return f"{alerts['value']:.2%} of {self.rows:,} rows raised an alert; no {self.loss}: {known}"
            counts = ", ".join(f"{name} {count:,}" for name, count in self.each.items())
            what = f"all labels ({counts})" if counts else "a label"
            few = f"{self.labels:,} of {self.rows:,} rows have {what}; a week takes {FEWEST_ROWS}"
            return f"not enough data: {few}"
        text = f"{self.loss} is {entry['value']:.4g}"
        text += f" ({entry['low']:.4g} to {entry['high']:.4g})" if "low" in entry else ""
        text += f", of {self.labels:,} labels on {self.days} day{'s'[: int(self.days > 1)]}"
        return text if "low" in entry else f"{text}; an interval takes {FEWEST_DAYS} days"


def measure(
    task: str,
    loss: str,
    frame: pd.DataFrame,
    slices: Sequence[str] = (),
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Measured:
    """The training metrics on the rows that have a label, overall and per slice, with intervals over whole days.

    Args:
        task: classification or regression.
        loss: measured beside the metrics of the task (params.yaml: gate.loss).
        frame: time, label (missing where it is not known), predictions, and such columns of `slices` as there are.
        slices: columns.
        resamples: how many bootstrap samples an interval is made of.
        confidence: of the intervals.

    Raises:
        Unscorable: predictions that are missing, or that do not offer the loss.
    """
    labelled = _measurable(task, frame).reset_index(drop=True)
    days, label = metrics.day_blocks(labelled["time"]), metrics.label_of(labelled)
    predictions = metrics.predictions_of(labelled.drop(columns=[*slices], errors="ignore"))
    if (task == "classification") != any(answer_columns.split(str(name))[1].startswith("p_") for name in predictions):
        raise metrics.Unscorable(f"these are no predictions of a {task}")

    def scored(members: npt.NDArray[np.int64]) -> dict[str, Any]:
        counts = {"rows": len(members), "days": len(np.unique(days[members]))}
        if counts["rows"] < FEWEST_ROWS:
            return {**counts, "metrics": {}}
        of_rows = label.iloc[members], predictions.iloc[members]
        blocks = days[members] if counts["days"] >= FEWEST_DAYS else np.zeros(len(members), dtype=np.int64)
        scores = metrics.score_with_intervals(
            task, *of_rows, blocks, resamples=resamples, seed=0, confidence=confidence
        )
        whole = metrics.labelled(task, labelled.iloc[members])  # of several labels some may not have come
        if loss not in scores and task != "anomaly" and len(whole) >= FEWEST_ROWS:
            losses = metrics.losses(loss, metrics.label_of(whole), predictions.loc[whole.index])
            blocks = pd.Series(blocks, members)[whole.index].to_numpy()
            low, high = metrics.interval(metrics.bootstrap_means(losses, blocks, resamples, 0), confidence)
            ends = {"low": low, "high": high} if math.isfinite(low) else {}
            scores[loss] = {"value": float(losses.mean()), **ends}
        rounded = {name: {key: numbers.short(v) for key, v in entry.items()} for name, entry in scores.items()}
        return {**counts, "metrics": rounded}

    overall = scored(np.arange(len(labelled)))
    parts: dict[str, dict[str, dict[str, Any]]] = {}
    for column in slices:
        if column in labelled:
            names = metrics.slice_names(labelled[column])
            groups = sorted(names.groupby(names.to_numpy()).indices.items())
            parts[column] = {str(value): scored(np.asarray(members)) for value, members in groups}
    known = len(metrics.labelled(task, labelled))
    counts = {str(name): int(of.notna().sum()) for name, of in label.items()} if isinstance(label, pd.DataFrame) else {}
    return Measured(loss, len(frame), known, overall["days"], overall["metrics"], parts, counts)


def _measurable(task: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that say something of quality: alerts count without labels, and each of several labels by itself."""
    if task == "anomaly":
        return frame
    is_of_several = len(answer_columns.labels(frame.columns)) > 1
    return frame[metrics.has_label(frame)] if is_of_several else metrics.labelled(task, frame)


def promise(
    task: str, loss: str, holdout: pd.DataFrame, resamples: int = 1000, confidence: float = 0.95
) -> dict[str, float] | None:
    """The loss on the holdout: {value, low, high}; None where it has too few rows.

    Of fewer days than say how days differ, or of rows without a time, the interval is over rows: it does not say how
    much days differ (degradation.py assumes something).

    Raises:
        Unscorable: predictions that do not offer the loss.
    """
    labelled = metrics.labelled(task, holdout)
    if len(labelled) < FEWEST_ROWS:
        return None
    losses = metrics.losses(loss, metrics.label_of(labelled), metrics.predictions_of(labelled))
    blocks, _ = metrics.blocks(labelled["time"])
    low, high = metrics.interval(metrics.bootstrap_means(losses, blocks, resamples, 0), confidence)
    entry = {"value": float(losses.mean()), "low": low, "high": high}
    return {name: numbers.short(value) for name, value in entry.items()}


# ── estimated ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Estimate:
    """The mean loss of a window, before its labels are known."""

    loss: str
    value: float
    low: float
    high: float
    """Of the interval that holds the mean loss with `confidence`."""
    confidence: float
    days: int
    rows: int

    @property
    def text(self) -> str:
        """In words."""
        interval = f"{self.confidence:.0%} interval {self.low:.4g} to {self.high:.4g}"
        return f"{self.loss} is estimated at {self.value:.4g} ({interval}), of {self.rows:,} rows on {self.days} days"


@dataclass(frozen=True)
class LossEstimator:
    """The expected loss of a model, given its prediction, and its scatter. Made by `fit`."""

    task: str
    loss: str
    confidence: float
    knots: Floats
    """Predictions: shape (k,)."""
    expected: Floats
    """The expected loss there."""
    covariance: Floats
    """Of `expected`, over days: shape (k, k)."""
    usual: Floats
    """How the holdout is spread over the knots: shape (k,), of sum 1."""
    noise: float
    """The variance of the residual losses within a day."""
    residual: Floats
    """Sum of loss − expected loss of each labelled day, oldest first: shape (days,)."""
    rows: Floats
    """How many rows these days have."""
    past: Floats
    """The errors of earlier estimates: shape (estimates,)."""

    @staticmethod
    def fit(
        task: str,
        loss: str,
        holdout: pd.DataFrame,
        earlier: pd.DataFrame | None = None,
        past: Sequence[float] = (),
        confidence: float = 0.95,
    ) -> LossEstimator:
        """Learn the loss of predictions.

        Args:
            task: classification or regression.
            loss: a loss of tasks.modelling.metrics.
            holdout: time, label and predictions of rows that the model has not learned from.
            earlier: the same of predictions of this release in production, newer than the holdout; of those that have
                labels by now.
            past: the errors of the estimates of earlier releases (`Off.value`), for windows of the same length.
            confidence: of the intervals to come.

        Raises:
            Unscorable: predictions that are missing, or that do not offer the loss.
        """
        x, losses, day = _loss_by_prediction(task, loss, holdout)
        knots = _knots(x)
        basis = _hats(x, knots)
        normal = basis.T @ basis + 1e-6 * max(len(x), 1) / len(knots) * np.eye(len(knots))
        inverse = np.linalg.inv(normal)
        expected = inverse @ (basis.T @ losses)
        residual = losses - basis @ expected
        # clustered by day: Liang & Zeger 1986, Biometrika 73, 13-22
        pushes = np.stack([np.bincount(day, basis[:, k] * residual) for k in range(len(knots))], axis=1)
        days = max(len(pushes), 2)
        covariance = inverse @ (pushes.T @ pushes) @ inverse * days / (days - 1)
        sums, rows = np.bincount(day, residual).astype(np.float64), np.bincount(day).astype(np.float64)
        within = ((residual - (sums / np.maximum(rows, 1))[day]) ** 2).sum() / max(len(residual) - len(rows), 1)
        if earlier is not None:
            x, losses, day = _loss_by_prediction(task, loss, earlier)
            residual = losses - np.interp(x, knots, expected)
            sums = np.concatenate([sums, np.bincount(day, residual)])
            rows = np.concatenate([rows, np.bincount(day)])
        usual = basis.mean(axis=0) if len(basis) else np.full(len(knots), 1 / len(knots))
        has_rows = rows > 0
        of_days = sums[has_rows], rows[has_rows], np.asarray(past, dtype=np.float64)
        return LossEstimator(task, loss, confidence, knots, expected, covariance, usual, float(within), *of_days)

    def lacking(self, frame: pd.DataFrame) -> str:
        """Why there is no estimate for these rows; empty where there is one."""
        days = _days(frame)
        if days < FEWEST_DAYS or len(frame) < FEWEST_ROWS:
            needed = f"{FEWEST_ROWS} on {FEWEST_DAYS} days are needed"
            return f"not enough data: {len(frame):,} predictions on {days} days; {needed}"
        if len(self.rows) < FEWEST_BLOCKS * days:
            needed = f"{FEWEST_BLOCKS} times {days} are needed to know how much a window of {days} days scatters"
            return f"not enough data: labels of {len(self.rows)} days are known; {needed}"
        return ""

    def estimate(self, frame: pd.DataFrame) -> Estimate | None:
        """The mean loss of rows (time, predictions), before their labels are known; None where `lacking` says why.

        Raises:
            Unscorable: predictions that are missing.
        """
        if self.lacking(frame):
            return None
        mix = _hats(_scalar(self.task, self.loss, metrics.predictions_of(frame)), self.knots).mean(axis=0)
        days = _days(frame)
        level, variance, quantile = self._scatter(days, len(frame))
        moved = mix - self.usual  # the level itself is in the scatter; this is the uncertainty of the slope
        variance += float(moved @ self.covariance @ moved)
        value = max(float(mix @ self.expected) + level, 0.0)
        reach = quantile * math.sqrt(variance)
        return Estimate(
            self.loss,
            numbers.short(value),
            numbers.short(max(value - reach, 0.0)),  # no loss here is negative
            numbers.short(value + reach),
            self.confidence,
            days,
            len(frame),
        )

    def _scatter(self, days: int, rows: int) -> tuple[float, float, float]:
        """By how much windows of so many days are off: the mean, the variance of the next one, and Student's quantile.

        The blocks are weighted means; with equal weights this is the textbook's interval for the next of k values, of
        k − 1 degrees of freedom. They scatter at least as if days were independent; a window of fewer rows than the
        blocks had scatters more, by their noise. Each earlier estimate is one more degree of freedom.
        """
        from scipy.special import stdtrit

        count = len(self.rows) // days
        newest = slice(len(self.rows) - count * days, None)
        residual, size = (of[newest].reshape(count, days).sum(axis=1) for of in (self.residual, self.rows))
        weights = FADES ** np.arange(count)[::-1]
        weights /= weights.sum()
        squared = float((weights**2).sum())
        off, freedom = residual / size, 1 / squared - 1
        level = float(weights @ off)
        of_blocks = float(weights @ (off - level) ** 2) / (1 - squared)
        scatter = max(of_blocks, float(np.var(self.residual / self.rows, ddof=1)) / days)
        variance = max(scatter + self.noise * (1 / rows - float(weights @ (1 / size))), self.noise / rows)
        variance += scatter * squared  # of the level
        total = freedom + len(self.past)
        variance = (freedom * variance + float(self.past @ self.past)) / total
        return level, variance, float(stdtrit(total, (1 + self.confidence) / 2))


# ── how far off ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Off:
    """The error of an estimate."""

    value: float
    """Measured less estimated: above 0, the model was worse than estimated."""
    text: str


def off(estimate: Estimate | None, measured: Measured) -> Off | None:
    """The error of an estimate; None without one, or while too few of the labels are known."""
    entry = measured.of_loss
    if estimate is None or entry is None or measured.labels < MOSTLY * measured.rows:
        return None
    value = numbers.short(entry["value"] - estimate.value)
    words = f"the estimate of {estimate.loss}, {estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g}), was "
    words += f"{abs(value):.3g} too {'low' if value > 0 else 'high'}, "
    if estimate.low <= entry["value"] <= estimate.high:
        return Off(value, f"{words}within its interval")
    words += f"outside of its interval: predictions like these are {'worse' if value > 0 else 'better'} than they were "
    return Off(value, f"{words}on the holdout, so what moved is the relation between features and label")


# ── predictions → numbers ─────────────────────────────────────────────────────────────────────────


def _loss_by_prediction(task: str, loss: str, frame: pd.DataFrame) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """The prediction as a number, the loss, and the day, of each row that has a label."""
    labelled = metrics.labelled(task, frame)
    predictions = metrics.predictions_of(labelled)
    losses = metrics.losses(loss, metrics.label_of(labelled), predictions)
    return _scalar(task, loss, predictions), losses, metrics.day_blocks(labelled["time"])


def _scalar(task: str, loss: str, predictions: pd.DataFrame, *, is_one: bool = True) -> Floats:
    """A number per prediction, of which its expected loss is a function.

    Of two classes the probability of the second one; of more the loss that it would have if its probabilities were
    true; of a number, that number. Of several labels the mean over them: of classes the loss that they would have.
    """
    outputs = dict.fromkeys(answer_columns.split(str(name))[0] for name in metrics.scores_of(predictions))
    if len(outputs) > 1:
        of_outputs = [metrics.of_output(predictions, output) for output in outputs]
        return np.asarray(np.mean([_scalar(task, loss, own, is_one=False) for own in of_outputs], axis=0))
    scores = metrics.scores_of(predictions)
    values = scores.to_numpy(dtype=np.float64)
    if bad := int((~np.isfinite(values)).any(axis=1).sum()):
        raise metrics.Unscorable(f"something is missing or infinite in {bad:,} of {len(values):,} predictions")
    if task != "classification":
        return predictions["prediction"].to_numpy(dtype=np.float64)
    if values.shape[1] == 2 and is_one:
        return values[:, 1]
    names = [column.removeprefix("p_") for column in scores.columns]
    if_true = [metrics.losses(loss, np.full(len(values), name), predictions) for name in names]
    return np.asarray((values * np.stack(if_true, axis=1)).sum(axis=1), dtype=np.float64)


def _knots(x: Floats) -> Floats:
    """Places with equally many rows between them: shape (k,), rising."""
    if not len(x):
        return np.zeros(1)
    count = min(max(len(x) // ROWS_PER_KNOT, 2), KNOTS)
    return np.unique(np.quantile(x, (np.arange(count) + 0.5) / count))


def _hats(x: Floats, knots: Floats) -> Floats:
    """How each value lies between the knots: shape (rows, k), of sum 1; beyond the last knot, on it."""
    basis = np.zeros((len(x), len(knots)))
    if len(knots) == 1:
        basis[:] = 1.0
        return basis
    above = np.clip(np.searchsorted(knots, x, side="right"), 1, len(knots) - 1)
    share = np.clip((x - knots[above - 1]) / (knots[above] - knots[above - 1]), 0.0, 1.0)
    rows = np.arange(len(x))
    basis[rows, above - 1], basis[rows, above] = 1 - share, share
    return basis


def _days(frame: pd.DataFrame) -> int:
    return len(np.unique(metrics.day_blocks(frame["time"])))
