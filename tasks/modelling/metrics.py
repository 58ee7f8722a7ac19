"""Metrics of predictions with their uncertainty: losses per row, metrics, bootstrap over days.

Predictions are frames as `model_file.predict` gives them: `p_<class>` per class for classification (the last of
two classes is the positive one), `prediction` and perhaps `q10` and `q90` for regression.

Rows of one day share their weather, their crews and their jams: they err together, and an interval that takes
each row for an independent witness is far too narrow. Here whole days are drawn instead of rows (Davison & Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8), and every statistic is computed from sums per day, so
that a thousand resamples are one product of matrices.

Only numpy and pandas are imported: the gate and the monitoring use this without waiting for scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground import numbers
from tasks.ground.errors import Mistake, did_you_mean

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

if TYPE_CHECKING:
    Labels = pd.Series[Any] | npt.NDArray[Any]

EPSILON = float(np.finfo(np.float64).eps)
"""The log loss keeps probabilities this far from 0 and 1, as scikit-learn does."""

BINS = 10
"""Bins of equal mass for the calibration error."""

THRESHOLDS = 256
"""A resample of ROC AUC or average precision looks at no more than this many score thresholds."""

MAX_SLICES = 50
"""A column with more values than this is sliced by its most frequent ones, and `other`."""


class Unscorable(Mistake, ValueError):
    """These predictions cannot be scored so: the text says why."""


def headline(task: str) -> str:
    """The metric of a task where there is room for one only."""
    return "log_loss" if task == "classification" else "mae"


def predictions_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The prediction columns of a frame."""
    names = [name for name in frame.columns if name.startswith("p_") or name in ("prediction", "q10", "q90")]
    return frame[names]


def labelled(task: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a label. Whole numbers that a missing one among them made floats are classes again.

    Args:
        task: classification or regression.
        frame: label (missing where it is not known) and predictions.
    """
    rows = frame[frame["label"].notna()]
    label = rows["label"]
    if task == "regression" or label.dtype.kind != "f" or any(f"p_{value}" in rows for value in label.unique()):
        return rows
    is_whole = (label % 1 == 0).all()  # beside one that is not, each is the text of its class
    return rows.assign(label=label.astype("int64") if is_whole else [numbers.text(value) for value in label.tolist()])


# ── losses: one number per row ────────────────────────────────────────────────────────────────────


def losses(name: str, label: Labels, predictions: pd.DataFrame) -> Floats:
    """The loss of each row; lower is better, and a model's loss is the mean.

    With y the label, p the predicted probabilities, m the prediction, q10 and q90 the predicted quantiles:

    - log_loss: −ln p[y], p kept within [EPSILON, 1 − EPSILON] (as sklearn.metrics.log_loss)
    - brier: (p − y)² for two classes; for more, the sum over classes of (p[k] − [y = k])² (Brier 1950; as
      sklearn.metrics.brier_score_loss)
    - zero_one: 1 where the most probable class is not y
    - absolute: |y − m|;  squared: (y − m)²
    - poisson: 2·(y·ln(y/m) − y + m), the deviance of a Poisson count (McCullagh & Nelder 1989, section 2.3)
    - pinball_10, pinball_90: max(t·(y − q), (t − 1)·(y − q)) (Koenker & Bassett 1978)
    - outside: 1 where y is not within [q10, q90]

    A class that the model has never seen has the probability 0.

    Args:
        name: which loss.
        label: shape (rows,).
        predictions: shape (rows, columns), in the order of `label`; indexes are not aligned.

    Returns:
        Shape (rows,).

    Raises:
        Unscorable: an unknown loss, one these predictions do not offer, or predictions that are not finite.
    """
    _check(label, predictions)
    if name not in _LOSSES:
        raise Unscorable(f"there is no loss {name!r}{did_you_mean(name, list(_LOSSES))}")
    if lacking := _lacking(name, label, predictions):
        raise Unscorable(f"the loss {name} cannot be computed: {lacking}")
    return _LOSSES[name](label, predictions)


def _log_loss(label: Labels, predictions: pd.DataFrame) -> Floats:
    return np.asarray(-np.log(np.clip(_of_truth(label, predictions), EPSILON, 1 - EPSILON)), dtype=np.float64)


def _brier(label: Labels, predictions: pd.DataFrame) -> Floats:
    p, codes = _probabilities(predictions), _codes(label, predictions)
    if p.shape[1] == 2:
        return np.asarray((p[:, 1] - (codes == 1)) ** 2, dtype=np.float64)
    hit = _of_truth(label, predictions)
    # sum of (p[k] − [y = k])² without the one-hot matrix
    return np.asarray((p * p).sum(axis=1) - 2 * hit + 1, dtype=np.float64)


def _zero_one(label: Labels, predictions: pd.DataFrame) -> Floats:
    return np.asarray(_probabilities(predictions).argmax(axis=1) != _codes(label, predictions), dtype=np.float64)


def _absolute(label: Labels, predictions: pd.DataFrame) -> Floats:
    return np.abs(_numbers(label) - _numbers(predictions["prediction"]))


def _squared(label: Labels, predictions: pd.DataFrame) -> Floats:
    return (_numbers(label) - _numbers(predictions["prediction"])) ** 2


def _poisson(label: Labels, predictions: pd.DataFrame) -> Floats:
    y, m = _numbers(label), _numbers(predictions["prediction"])
    logarithm = np.zeros_like(y)
    seen = y > 0  # the limit of y·ln(y/m) for y → 0 is 0
    logarithm[seen] = y[seen] * np.log(y[seen] / m[seen])
    return 2 * (logarithm - y + m)


def _pinball(label: Labels, predictions: pd.DataFrame, column: str, t: float) -> Floats:
    over = _numbers(label) - _numbers(predictions[column])
    return np.maximum(t * over, (t - 1) * over)


def _outside(label: Labels, predictions: pd.DataFrame) -> Floats:
    y = _numbers(label)
    return np.asarray((y < _numbers(predictions["q10"])) | (y > _numbers(predictions["q90"])), dtype=np.float64)


_LOSSES: dict[str, Callable[[Labels, pd.DataFrame], Floats]] = {
    "log_loss": _log_loss,
    "brier": _brier,
    "zero_one": _zero_one,
    "absolute": _absolute,
    "squared": _squared,
    "poisson": _poisson,
    "pinball_10": lambda label, predictions: _pinball(label, predictions, "q10", 0.1),
    "pinball_90": lambda label, predictions: _pinball(label, predictions, "q90", 0.9),
    "outside": _outside,
}
_NEEDS = {
    **dict.fromkeys(("absolute", "squared", "poisson"), ("prediction",)),
    "pinball_10": ("q10",),
    "pinball_90": ("q90",),
    "outside": ("q10", "q90"),
}


def _lacking(name: str, label: Labels, predictions: pd.DataFrame) -> str:
    """Why a loss cannot be computed of these predictions; empty where it can."""
    for column in _NEEDS.get(name, ()):
        if column not in predictions.columns:
            return f"the predictions have no column {column}"
    if name not in _NEEDS and len(_class_columns(predictions)) < 2:
        return "the predictions have no columns p_<class>"
    if name == "poisson":
        if (_numbers(label) < 0).any():
            return "it is of counts, and there are labels below 0"
        if (_numbers(predictions["prediction"]) <= 0).any():
            return "it needs predictions above 0, and some are not"
    return ""


def _check(label: Labels, predictions: pd.DataFrame) -> None:
    if len(label) != len(predictions):
        raise Unscorable(f"{len(label)} labels and {len(predictions)} predictions are not of the same rows")
    for column in predictions_of(predictions):
        bad = ~np.isfinite(_numbers(predictions[column]))
        if bad.any():
            count = f"{int(bad.sum())} of {len(bad)}"
            raise Unscorable(f"{column} is missing or infinite in {count} predictions: the model gives no answer there")


def _class_columns(predictions: pd.DataFrame) -> list[str]:
    return [column for column in predictions.columns if column.startswith("p_")]


def _probabilities(predictions: pd.DataFrame) -> Floats:
    return predictions[_class_columns(predictions)].to_numpy(dtype=np.float64)


def _codes(label: Labels, predictions: pd.DataFrame) -> Ints:
    """The position of each row's true class among the columns; −1 for a class that the model does not know."""
    codes, values = pd.factorize(np.asarray(label))
    classes = [column.removeprefix("p_") for column in _class_columns(predictions)]
    positions = np.array([classes.index(str(v)) if str(v) in classes else -1 for v in values], dtype=np.int64)
    return positions[codes] if len(values) else np.empty(0, dtype=np.int64)


def _of_truth(label: Labels, predictions: pd.DataFrame) -> Floats:
    """The probability that was given to the class that came true."""
    p, codes = _probabilities(predictions), _codes(label, predictions)
    return np.where(codes >= 0, p[np.arange(len(p)), codes], 0.0)


def _numbers(values: Labels) -> Floats:
    return np.asarray(values, dtype=np.float64)


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────


def score(task: str, label: Labels, predictions: pd.DataFrame) -> dict[str, float]:
    """Every metric that is defined on these rows; one that is not (AUC where all labels are equal) is left out.

    - two classes: log_loss, brier, roc_auc, average_precision, calibration_error
    - more classes: log_loss, brier, accuracy, roc_auc (each class against the rest, plain mean), calibration_error
    - regression: mae, rmse, poisson (labels ≥ 0 and predictions > 0), calibration_error; with q10 and q90 also
      pinball_10, pinball_90 and coverage (the share of labels within [q10, q90]; 0.8 is meant)

    roc_auc is the Mann-Whitney statistic with half of the ties (Hanley & McNeil 1982), average_precision is
    the sum over thresholds of (recall gained) · precision, as scikit-learn defines both.
    """
    return {name: values["value"] for name, values in _measure(task, label, predictions).items()}


def score_with_intervals(
    task: str,
    label: Labels,
    predictions: pd.DataFrame,
    blocks: Ints,
    *,
    resamples: int,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, dict[str, float]]:
    """`score`, with the interval of each metric: {metric: {value, low, high}}.

    low and high are left out where no two days can be compared. The intervals of roc_auc and average_precision are
    of thresholds binned to THRESHOLDS and then moved to the exact value; that of calibration_error, a sum of
    absolute values and so biased upward in every resample, is moved down by that bias, not below 0.

    Args:
        task: classification or regression.
        label: shape (rows,).
        predictions: shape (rows, columns).
        blocks: shape (rows,); the day of each row (`day_blocks`).
        resamples: how many times days are drawn.
        seed: of the drawing.
        confidence: the share of the interval.
    """
    plan = _DayResamples.of(blocks, resamples, seed)
    return _measure(task, label, predictions, plan, confidence)


def calibration_error(task: str, label: Labels, predictions: pd.DataFrame) -> float:
    """How far predictions are off on the whole; 0 is best, nan where it is not defined (no rows).

    - two classes: the expected calibration error Σ (rows in bin / rows) · |mean p − share positive| over BINS bins of
      equal mass (Naeini et al. 2015; equal mass: Nixon et al. 2019). Rows with equal p share a bin.
    - more classes: the same, of the top label's probability against how often it is right (Guo et al. 2017).
    - regression: |mean prediction − mean label| / mean |label|, which is |mean prediction / mean label − 1| for labels
      ≥ 0, and nan where all labels are 0.
    """
    _check(label, predictions)
    gaps, sizes = _calibration_sums(task, label, predictions, np.zeros(len(label), dtype=np.int64), 1)
    return float(_relative(np.abs(gaps).sum(axis=1), sizes)[0])


def calibration_bins(confidence: Floats) -> Ints:
    """The bin of equal mass of each row, from 0; equal values share a bin, so that there may be fewer than BINS."""
    if not len(confidence):
        return np.empty(0, dtype=np.int64)
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, BINS + 1)[1:-1], method="inverted_cdf"))
    return np.searchsorted(edges, confidence, side="left").astype(np.int64)


def top_label(label: Labels, predictions: pd.DataFrame) -> tuple[Floats, Floats]:
    """The two sides of calibration: each row's confidence, and 1.0 where it came true.

    Two classes: the probability of the positive class. More: that of the most probable class. Both of shape (rows,).
    """
    p, codes = _probabilities(predictions), _codes(label, predictions)
    if p.shape[1] == 2:
        return p[:, 1], (codes == 1).astype(np.float64)
    return p.max(axis=1), (p.argmax(axis=1) == codes).astype(np.float64)


def baseline_predictions(training: dict[str, Any], n: int) -> pd.DataFrame:
    """The predictions of a baseline without features: the shares of the classes, or the mean and the quantiles.

    Args:
        training: training.json, with `task`, `classes` and `baseline`.
        n: rows.
    """
    baseline = training["baseline"]
    if training["task"] == "classification":
        constants = {f"p_{c}": share for c, share in zip(training["classes"], baseline["classes"], strict=True)}
    else:
        quantiles = baseline["quantiles"]
        constants = {"prediction": baseline["mean"], "q10": quantiles["0.1"], "q90": quantiles["0.9"]}
    return pd.DataFrame({column: np.full(n, float(value)) for column, value in constants.items()})


def slice_names(values: pd.Series[Any]) -> pd.Series[Any]:
    """The slice of each row as a text: 17.0 is `17`, a missing value `(missing)`; beyond MAX_SLICES values `other`."""
    codes, distinct = pd.factorize(values)
    texts = [f"{v:g}" if isinstance(v, float) else str(v) for v in distinct]
    if len(texts) > MAX_SLICES:
        frequent = np.argsort(-np.bincount(codes[codes >= 0]), kind="stable")[:MAX_SLICES]
        texts = [text if i in set(frequent.tolist()) else "other" for i, text in enumerate(texts)]
    return pd.Series(np.array([*texts, "(missing)"], dtype=object)[codes], index=values.index)


_MEANS: dict[str, tuple[str, Callable[[Floats], Floats]]] = {
    "log_loss": ("log_loss", np.asarray),
    "brier": ("brier", np.asarray),
    "accuracy": ("zero_one", lambda mean: 1 - mean),
    "mae": ("absolute", np.asarray),
    "rmse": ("squared", np.sqrt),
    "poisson": ("poisson", np.asarray),
    "pinball_10": ("pinball_10", np.asarray),
    "pinball_90": ("pinball_90", np.asarray),
    "coverage": ("outside", lambda mean: 1 - mean),
}
"""Metrics that are a mean of a loss over rows: which loss, and what is made of the mean."""


def _measure(
    task: str, label: Labels, predictions: pd.DataFrame, plan: _DayResamples | None = None, confidence: float = 0.95
) -> dict[str, dict[str, float]]:
    """Each defined metric: its value, and its interval where a plan of resamples is given."""
    _check(label, predictions)
    if not len(label):
        return {}
    measured: dict[str, dict[str, float]] = {}
    for metric in _mean_metrics(task, predictions):
        loss, finish = _MEANS[metric]
        if not _lacking(loss, label, predictions):
            rows = _LOSSES[loss](label, predictions)
            value = finish(rows.mean())
            measured[metric] = _with_interval(value, None if plan is None else finish(plan.means(rows)), confidence)
    if task == "classification":
        measured |= _measure_ranking(label, predictions, plan, confidence)
    error = calibration_error(task, label, predictions)
    if np.isfinite(error):
        samples = None if plan is None else plan.calibration(task, label, predictions)
        measured["calibration_error"] = _with_interval(error, samples, confidence, move=True)
    return measured


def _mean_metrics(task: str, predictions: pd.DataFrame) -> list[str]:
    if task == "classification":
        return ["log_loss", "brier", *(["accuracy"] if len(_class_columns(predictions)) > 2 else [])]
    return ["mae", "rmse", "poisson", "pinball_10", "pinball_90", "coverage"]


def _with_interval(value: Any, samples: Floats | None, confidence: float, move: bool = False) -> dict[str, float]:
    entry = {"value": float(value)}
    if samples is None or np.isfinite(samples).sum() < 2:
        return entry
    if move:
        samples = np.maximum(samples + (float(value) - np.nanmean(samples)), 0.0)
    low, high = interval(samples, confidence)
    return {**entry, "low": low, "high": high}


def _measure_ranking(
    label: Labels, predictions: pd.DataFrame, plan: _DayResamples | None, confidence: float
) -> dict[str, dict[str, float]]:
    """roc_auc, and for two classes average_precision, where there are rows of both sides."""
    p, codes = _probabilities(predictions), _codes(label, predictions)
    chosen = [1] if p.shape[1] == 2 else list(range(p.shape[1]))
    chosen = [k for k in chosen if 0 < (codes == k).sum() < len(codes)]
    if not chosen:
        return {}
    value = np.mean([ranking(codes == k, p[:, k]) for k in chosen], axis=0)
    names = ["roc_auc", "average_precision"][: 2 if p.shape[1] == 2 else 1]
    if plan is None:
        return {name: {"value": float(v)} for name, v in zip(names, value, strict=False)}
    resampled = np.stack([plan.ranking(codes == k, p[:, k]) for k in chosen])  # classes × metrics × resamples
    known = np.isfinite(resampled)
    with np.errstate(invalid="ignore"):
        samples = np.where(known, resampled, 0).sum(axis=0) / known.sum(axis=0)
    return {name: _with_interval(v, s, confidence) for name, v, s in zip(names, value, samples, strict=False)}


def ranking(positive: npt.NDArray[np.bool_], scores: Floats) -> tuple[float, float]:
    """(roc_auc, average_precision) of scores, exact; nan where all rows are of one side."""
    table = _RankingTable.of(positive, scores, np.zeros(len(scores), dtype=np.int64), 1, len(scores))
    auc, precision = table.weighted(np.ones((1, 1)))
    return float(auc[0]), float(precision[0])


# ── bootstrap over days ───────────────────────────────────────────────────────────────────────────


def day_blocks(time: pd.Series[Any]) -> Ints:
    """The day of each row, counted from the first one: shape (rows,)."""
    if not len(time):
        return np.empty(0, dtype=np.int64)
    days = pd.to_datetime(time).to_numpy().astype("datetime64[D]").astype(np.int64)
    return np.asarray(days - days.min(), dtype=np.int64)


def bootstrap_means(values: npt.NDArray[Any], blocks: Ints, resamples: int, seed: int) -> Floats:
    """Means of `values` over days drawn with replacement: Σ values / Σ rows of the drawn days (a ratio estimator).

    Of D days, D − 1 are drawn each time: with that the spread is unbiased for few days too, where drawing D gives a
    variance that is too small by (D − 1)/D (Rao & Wu 1988, Resampling inference with complex survey data).

    Args:
        values: shape (rows,), or (rows, k) for k means at once.
        blocks: shape (rows,); the day of each row, as `day_blocks` counts it. Only which rows share one matters.
        resamples: how many.
        seed: the same seed and the same days draw the same days: differences of two models are paired by it.

    Returns:
        Shape (resamples,) or (resamples, k); nan for fewer than two days, of which nothing can be said.
    """
    plan, numbers = _DayResamples.of(blocks, resamples, seed), np.asarray(values, dtype=np.float64)
    if numbers.ndim == 1:
        return plan.means(numbers)
    return np.stack([plan.means(column) for column in numbers.T], axis=1)


def interval(samples: Floats, confidence: float) -> tuple[float, float]:
    """The middle `confidence` of the samples (percentile interval, Efron 1979); samples that are nan are not counted.

    (nan, nan) where none is left.
    """
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class _DayResamples:
    """Which days each resample draws: `weights` of shape (resamples, days), `codes` the day of each row from 0."""

    codes: Ints
    weights: Floats

    @staticmethod
    def of(blocks: Ints, resamples: int, seed: int) -> _DayResamples:
        blocks = np.asarray(blocks)
        codes, found = pd.factorize(blocks, sort=True)
        days = len(found)
        if days < 2:
            return _DayResamples(codes.astype(np.int64), np.zeros((resamples, days)))
        drawn = np.random.default_rng(seed).multinomial(days - 1, np.full(days, 1 / days), size=resamples)
        return _DayResamples(codes.astype(np.int64), drawn.astype(np.float64))

    @property
    def days(self) -> int:
        return int(self.weights.shape[1])

    def sums(self, values: Floats | None = None) -> Floats:
        """Σ values (or the number of rows) over the drawn days: shape (resamples,)."""
        return np.asarray(self.weights @ np.bincount(self.codes, values, minlength=self.days), dtype=np.float64)

    def means(self, values: Floats) -> Floats:
        return _relative(self.sums(values), self.rows)

    @cached_property
    def rows(self) -> Floats:
        """How many rows the drawn days have: shape (resamples,)."""
        return self.sums()

    def calibration(self, task: str, label: Labels, predictions: pd.DataFrame) -> Floats:
        gaps, sizes = _calibration_sums(task, label, predictions, self.codes, self.days)
        return _relative(np.abs(self.weights @ gaps).sum(axis=1), self.weights @ sizes)

    def ranking(self, positive: npt.NDArray[np.bool_], scores: Floats) -> Floats:
        """roc_auc and average_precision of each resample: shape (2, resamples)."""
        table = _RankingTable.of(positive, scores, self.codes, self.days, THRESHOLDS)
        moved = np.array(ranking(positive, scores)) - np.ravel(table.weighted(np.ones((1, self.days))))
        return np.asarray(np.clip(table.weighted(self.weights) + moved[:, None], 0.0, 1.0), dtype=np.float64)


def _calibration_sums(
    task: str, label: Labels, predictions: pd.DataFrame, codes: Ints, days: int
) -> tuple[Floats, Floats]:
    """Per day: what is too much in each bin, shape (days, bins), and what it is divided by, shape (days,)."""
    if task == "classification":
        confidence, right = top_label(label, predictions)
        bins, size = calibration_bins(confidence), np.ones(len(confidence))
        gap = confidence - right
    else:
        y = _numbers(label)
        bins, size, gap = np.zeros(len(y), dtype=np.int64), np.abs(y), _numbers(predictions["prediction"]) - y
    gaps = np.bincount(codes * BINS + bins, gap, minlength=days * BINS).reshape(days, BINS)
    return gaps.astype(np.float64), np.bincount(codes, size, minlength=days).astype(np.float64)


def _relative(part: Floats, whole: Floats) -> Floats:
    """The ratio part / whole; over 0, as in a resample without rows, nan."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(whole > 0, part / whole, np.nan), dtype=np.float64)


@dataclass(frozen=True)
class _RankingTable:
    """Rows per day and threshold, thresholds falling: what ROC AUC and average precision of any mix of days need.

    Attributes:
        hits: positives at the threshold, shape (days, thresholds).
        above: negatives that score above it, cumulated.
        upto: negatives that score above it or equal, cumulated.
        negatives: all negatives, shape (days,).
    """

    hits: Floats
    above: Floats
    upto: Floats
    negatives: Floats

    @staticmethod
    def of(positive: npt.NDArray[np.bool_], scores: Floats, codes: Ints, days: int, limit: int) -> _RankingTable:
        steps = np.unique(scores[positive])
        binned = len(steps) > limit
        if binned:
            steps = np.unique(np.quantile(scores[positive], np.linspace(0, 1, limit + 1)[:-1], method="inverted_cdf"))
        count = len(steps)
        at = count - np.searchsorted(steps, scores, side="right")  # from the highest; `count`: below every positive
        tie = np.ones(len(scores), dtype=bool) if binned else steps[np.minimum(count - 1 - at, count - 1)] == scores

        def table(rows: npt.NDArray[np.bool_]) -> Floats:
            cells = np.bincount(codes[rows] * (count + 1) + at[rows], minlength=days * (count + 1))
            return cells.reshape(days, count + 1)[:, :count].astype(np.float64)

        ties, between = table(~positive & tie), table(~positive & ~tie)
        upto = np.cumsum(ties + between, axis=1)
        negatives = np.bincount(codes[~positive], minlength=days).astype(np.float64)
        return _RankingTable(table(positive), upto - ties, upto, negatives)

    def weighted(self, weights: Floats) -> Floats:
        """(roc_auc, average_precision) for each row of weights over days: shape (2, rows); nan where undefined."""
        hits, above, upto = weights @ self.hits, weights @ self.above, weights @ self.upto
        positives, negatives = hits.sum(axis=1), weights @ self.negatives
        beaten = (hits * (above + upto)).sum(axis=1) / 2
        found = np.cumsum(hits, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            precise = np.where(hits > 0, hits * found / (found + upto), 0.0).sum(axis=1)
        auc = 1 - _relative(beaten, positives * negatives)
        return np.stack([auc, np.where(negatives > 0, _relative(precise, positives), np.nan)])
