"""Metrics of predictions with their uncertainty: losses per row, metrics, bootstrap over days.

Predictions are frames as `model_file.predict` gives them: `p_<class>` per class for classification (the last of
two classes is the positive one) and `prediction`, the class that is decided for, where it is not always the most
probable one; `prediction` and perhaps `q10` and `q90` for regression; `prediction` (1: an alert) and `anomaly_score`
for an anomaly model, whose labels are 1 (an anomaly), 0 or missing. Of several labels each has these columns by its
name, `rain:p_yes`, and `label` is a table with a column for each (`label_of`).

Rows of one day share their weather, their crews and their jams: they err together, and an interval that takes
each row for an independent witness is far too narrow. Here whole days are drawn instead of rows (Davison & Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8), and every statistic is computed from sums per day, so
that a thousand resamples are one product of matrices.

Only numpy and pandas are imported: the gate and the monitoring use this without waiting for scikit-learn.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.ground import numbers
from tasks.ground.errors import Mistake, did_you_mean
from tasks.ground.task_kinds import KINDS
from tasks.runtime import answer_columns

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

if TYPE_CHECKING:
    Labels = pd.Series[Any] | pd.DataFrame | npt.NDArray[Any]

EPSILON = float(np.finfo(np.float64).eps)
"""The log loss keeps probabilities this far from 0 and 1, as scikit-learn does."""

BINS = 10
"""Bins of equal mass for the calibration error."""

THRESHOLDS = 256
"""A resample of ROC AUC or average precision looks at no more than this many score thresholds."""

MAX_SLICES = 50
"""A column with more values than this is sliced by its most frequent ones, and `other`."""


COST = re.compile(r"cost\(([\d.e+-]+), ([\d.e+-]+)\)")
"""The loss of decisions that cost something: what a false positive costs, and what a false negative."""


class Unscorable(Mistake, ValueError):
    """These predictions cannot be scored so: the text says why."""


def headline(task: str) -> str:
    """The metric of a task where there is room for one only."""
    return KINDS[task].headline


def predictions_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The prediction columns of a frame."""
    return frame[[name for name in frame.columns if answer_columns.is_prediction(str(name))]]


def scores_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The prediction columns that are numbers: of a classification, those without the class that is decided for."""
    predictions = predictions_of(frame)
    own = {str(name): answer_columns.split(str(name)) for name in predictions}
    of_classes = {output for output, name in own.values() if name.startswith("p_")}
    kept = [full for full, (output, name) in own.items() if output not in of_classes or name.startswith("p_")]
    return predictions[kept]


# ── labels ────────────────────────────────────────────────────────────────────────────────────────


def label_of(frame: pd.DataFrame) -> pd.Series[Any] | pd.DataFrame:
    """The label of each row; of several, a table with a column for each, by its name."""
    columns = answer_columns.labels(frame.columns)
    if columns in ([], ["label"]):
        return frame["label"]
    return frame[columns].rename(columns=lambda column: answer_columns.split(column)[0])


def by_label(label: pd.DataFrame) -> dict[str, pd.Series[Any]]:
    """The columns of a table of several labels."""
    return {str(name): label[name] for name in label}


def of_output(predictions: pd.DataFrame, output: str) -> pd.DataFrame:
    """The prediction columns of one of several labels, by the names that they have for it alone."""
    own = {name: answer_columns.split(str(name)) for name in predictions.columns}
    names = {name: short for name, (of, short) in own.items() if of == output}
    return predictions[list(names)].rename(columns=names)


def has_label(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Whether each row has a label; of several, at least one of them."""
    return np.asarray(frame[answer_columns.labels(frame.columns)].notna().any(axis=1), dtype=bool)


def labelled(task: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that have a label; of several, all of them. Whole numbers that were made floats are classes again."""
    columns = answer_columns.labels(frame.columns)
    rows = frame[frame[columns].notna().all(axis=1)]
    if task != "classification":
        return rows
    return rows.assign(**{column: _classes_again(rows[column], rows.columns) for column in columns})


def _classes_again(label: pd.Series[Any], columns: pd.Index[Any]) -> Any:
    """A missing one among whole numbers made them floats."""
    before = str(label.name).removesuffix("label")
    if label.dtype.kind != "f" or any(f"{before}p_{value}" in columns for value in label.unique()):
        return label
    is_whole = (label % 1 == 0).all()  # beside one that is not, each is the text of its class
    return label.astype("int64") if is_whole else [numbers.text(value) for value in label.tolist()]


# ── losses: one number per row ────────────────────────────────────────────────────────────────────


def losses(name: str, label: Labels, predictions: pd.DataFrame) -> Floats:
    """The loss of each row; lower is better, and a model's loss is the mean.

    With y the label, p the predicted probabilities, m the prediction, q10 and q90 the predicted quantiles:

    - log_loss: −ln p[y], p kept within [EPSILON, 1 − EPSILON] (as sklearn.metrics.log_loss)
    - brier: (p − y)² for two classes; for more, the sum over classes of (p[k] − [y = k])² (Brier 1950; as
      sklearn.metrics.brier_score_loss)
    - zero_one: 1 where the class that is decided for is not y
    - cost(a, b): a where the positive one of two classes is decided for and is not y, b where it is y and is not
      decided for (Elkan 2001, The foundations of cost-sensitive learning)
    - absolute: |y − m|;  squared: (y − m)²
    - poisson: 2·(y·ln(y/m) − y + m), the deviance of a Poisson count (McCullagh & Nelder 1989, section 2.3)
    - pinball_10, pinball_90: max(t·(y − q), (t − 1)·(y − q)) (Koenker & Bassett 1978)
    - outside: 1 where y is not within [q10, q90]
    - scaled: |y − m| / e, e the error of the seasonal-naive forecast in training (Hyndman & Koehler 2006)

    Of several labels it is the mean over them. A class that the model has never seen has the probability 0. Rows of
    `label` and `predictions` are matched by their order; indexes are not aligned.

    Raises:
        Unscorable: an unknown loss, one these predictions do not offer, or predictions that are not finite.
    """
    if isinstance(label, pd.DataFrame):
        each = [losses(name, own, of_output(predictions, output)) for output, own in by_label(label).items()]
        return np.asarray(np.mean(each, axis=0), dtype=np.float64)
    _check(label, predictions)
    if name == "average_precision":
        raise Unscorable("an average precision is of all rows together: none has one by itself")
    if name not in _LOSSES and not COST.fullmatch(name):
        raise Unscorable(f"there is no loss {name!r}{did_you_mean(name, list(_LOSSES))}")
    if lacking := _lacking(name, label, predictions):
        raise Unscorable(f"the loss {name} cannot be computed: {lacking}")
    return np.asarray(_loss(name).of_rows(label, predictions), dtype=np.float64)


def _brier(label: Labels, predictions: pd.DataFrame) -> Floats:
    p = _probabilities(predictions)
    if p.shape[1] == 2:
        return np.asarray((p[:, 1] - (_codes(label, predictions) == 1)) ** 2)
    # sum of (p[k] − [y = k])² without the one-hot matrix
    return np.asarray((p * p).sum(axis=1) - 2 * _of_truth(label, predictions) + 1)


def _poisson(label: Labels, predictions: pd.DataFrame) -> Floats:
    y, m = _numbers(label), _numbers(predictions["prediction"])
    logarithm = np.zeros_like(y)
    seen = y > 0  # the limit of y·ln(y/m) for y → 0 is 0
    logarithm[seen] = y[seen] * np.log(y[seen] / m[seen])
    return 2 * (logarithm - y + m)


def _pinball(label: Labels, predictions: pd.DataFrame, *, column: str, t: float) -> Floats:
    over = _excess(label, predictions, column)
    return np.maximum(t * over, (t - 1) * over)


def _excess(label: Labels, predictions: pd.DataFrame, column: str = "prediction") -> Floats:
    """By how much each label is above the prediction."""
    return _numbers(label) - _numbers(predictions[column])


@dataclass(frozen=True)
class _Loss:
    of_rows: Callable[[Labels, pd.DataFrame], Any]
    columns: tuple[str, ...] = ()
    """What it needs of the predictions; empty: the probabilities of classes."""


_LOSSES = {
    "log_loss": _Loss(lambda y, p: -np.log(np.clip(_of_truth(y, p), EPSILON, 1 - EPSILON))),
    "brier": _Loss(_brier),
    "zero_one": _Loss(lambda y, p: decided(p) != _codes(y, p)),
    "absolute": _Loss(lambda y, p: np.abs(_excess(y, p)), ("prediction",)),
    "scaled": _Loss(
        lambda y, p: np.abs(_excess(y, p)) / _numbers(p["seasonal_error"]), ("prediction", "seasonal_error")
    ),
    "squared": _Loss(lambda y, p: _excess(y, p) ** 2, ("prediction",)),
    "poisson": _Loss(_poisson, ("prediction",)),
    "pinball_10": _Loss(partial(_pinball, column="q10", t=0.1), ("q10",)),
    "pinball_90": _Loss(partial(_pinball, column="q90", t=0.9), ("q90",)),
    "outside": _Loss(lambda y, p: (_excess(y, p, "q10") < 0) | (_excess(y, p, "q90") > 0), ("q10", "q90")),
}


def _loss(name: str) -> _Loss:
    if (cost := COST.fullmatch(name)) is None:
        return _LOSSES[name]
    false_positive, false_negative = map(float, cost.groups())
    return _Loss(partial(_cost, false_positive=false_positive, false_negative=false_negative))


def _cost(label: Labels, predictions: pd.DataFrame, *, false_positive: float, false_negative: float) -> Floats:
    is_positive, is_taken = _codes(label, predictions) == 1, decided(predictions) == 1
    costs = false_positive * (is_taken & ~is_positive) + false_negative * (is_positive & ~is_taken)
    return np.asarray(costs, dtype=np.float64)


def _lacking(name: str, label: Labels, predictions: pd.DataFrame) -> str:
    """Why a loss cannot be computed of these predictions; empty where it can."""
    columns = _loss(name).columns
    for column in columns:
        if column not in predictions.columns:
            return f"the predictions have no column {column}"
    if not columns and len(_class_columns(predictions)) < 2:
        return "the predictions have no columns p_<class>"
    if COST.fullmatch(name) and len(_class_columns(predictions)) != 2:
        return f"it is of two classes, the predictions have {len(_class_columns(predictions))}"
    if name == "poisson":
        if (_numbers(label) < 0).any():
            return "it is of counts, and there are labels below 0"
        if (_numbers(predictions["prediction"]) <= 0).any():
            return "it needs predictions above 0, and some are not"
    return ""


def _check(label: Labels, predictions: pd.DataFrame) -> None:
    if len(label) != len(predictions):
        raise Unscorable(f"{len(label)} labels and {len(predictions)} predictions are not of the same rows")
    for column in scores_of(predictions):
        bad = ~np.isfinite(_numbers(predictions[column]))
        if bad.any():
            count = f"{int(bad.sum())} of {len(bad)}"
            raise Unscorable(f"{column} is missing or infinite in {count} predictions: the model gives no answer there")


def _class_columns(predictions: pd.DataFrame) -> list[str]:
    return [column for column in predictions.columns if column.startswith("p_")]


def _probabilities(predictions: pd.DataFrame) -> Floats:
    return predictions[_class_columns(predictions)].to_numpy(dtype=np.float64)


def decided(predictions: pd.DataFrame) -> Ints:
    """The position among the columns of the class that is decided for; where none is named, the most probable one."""
    most_probable = np.asarray(_probabilities(predictions).argmax(axis=1), dtype=np.int64)
    if "prediction" not in predictions:
        return most_probable
    codes, values = pd.factorize(predictions["prediction"].to_numpy(dtype=object))
    classes = pd.Index([column.removeprefix("p_") for column in _class_columns(predictions)])
    named = np.append(classes.get_indexer(pd.Index([numbers.text(value) for value in values])), -1)[codes]
    return np.asarray(np.where(named >= 0, named, most_probable), dtype=np.int64)


def positives(label: Labels, predictions: pd.DataFrame) -> tuple[Floats, Floats]:
    """1.0 where the label is the positive one of two classes, and where it is decided for; each of shape (rows,).

    Raises:
        Unscorable: there are not two classes.
    """
    if (count := len(_class_columns(predictions))) != 2:
        raise Unscorable(f"it is of two classes, the predictions have {count}")
    return (_codes(label, predictions) == 1).astype(np.float64), (decided(predictions) == 1).astype(np.float64)


def _codes(label: Labels, predictions: pd.DataFrame) -> Ints:
    """The position of each row's true class among the columns; −1 for a class that the model does not know."""
    codes, values = pd.factorize(np.asarray(label))
    classes = pd.Index([column.removeprefix("p_") for column in _class_columns(predictions)])
    return classes.get_indexer(pd.Index([str(value) for value in values]))[codes].astype(np.int64)


def _of_truth(label: Labels, predictions: pd.DataFrame) -> Floats:
    """The probability that was given to the class that came true."""
    p, codes = _probabilities(predictions), _codes(label, predictions)
    return np.where(codes >= 0, p[np.arange(len(p)), codes], 0.0)


def _numbers(values: Labels) -> Floats:
    return np.asarray(values, dtype=np.float64)


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────


def score(
    task: str,
    label: Labels,
    predictions: pd.DataFrame,
    *,
    cost: str | None = None,
    weights: Floats | None = None,
) -> dict[str, float]:
    """Every metric that is defined on these rows; one that is not (AUC where all labels are equal) is left out.

    - two classes: log_loss, brier, roc_auc, average_precision, calibration_error, accuracy; precision, recall and f1 of
      the positive one; with `cost`, the loss `cost(a, b)`, cost, its mean
    - more classes: log_loss, brier, accuracy, roc_auc (each class against the rest, plain mean), calibration_error;
      precision, recall and f1 as plain means over the classes that occur (as scikit-learn's macro average)
    - regression: mae, rmse, poisson (labels ≥ 0 and predictions > 0), calibration_error; with q10 and q90 also
      pinball_10, pinball_90 and coverage (the share of labels within [q10, q90]; 0.8 is meant); of a forecast mase
    - anomaly: alert_rate; of the rows that have a label precision_at_k (the share of anomalies among the k highest
      scores, k being the number of alerts), recall_at_k (the share of the anomalies that are among these), roc_auc,
      average_precision

    roc_auc is the Mann-Whitney statistic with half of the ties (Hanley & McNeil 1982), average_precision is
    the sum over thresholds of (recall gained) · precision, as scikit-learn defines both. With `weights`, of shape
    (rows,), a row counts so often.

    Of several labels each metric is of each, as `mae:heating`, on the rows in which that label is known; and plain, as
    the mean over the labels.
    """
    measured = _measure(task, label, predictions, _DayResamples.none(len(label), weights), cost)
    return {metric: float(values[0]) for metric, values in measured.items()}


def score_with_intervals(
    task: str,
    label: Labels,
    predictions: pd.DataFrame,
    blocks: Ints,
    *,
    resamples: int,
    seed: int = 0,
    confidence: float = 0.95,
    cost: str | None = None,
    weights: Floats | None = None,
) -> dict[str, dict[str, float]]:
    """`score`, with the interval of each metric: {metric: {value, low, high}}.

    low and high are left out where no two days can be compared. The intervals of roc_auc and average_precision are
    of thresholds binned to THRESHOLDS and then moved to the exact value; that of calibration_error, a sum of
    absolute values and so biased upward in every resample, is moved down by that bias, not below 0. Days are drawn as
    by `bootstrap_means`; `confidence` is the share of the interval.
    """
    entries = {}
    days = _DayResamples.of(blocks, resamples, seed, weights)
    for metric, (value, *drawn) in _measure(task, label, predictions, days, cost).items():
        entries[metric], samples = {"value": float(value)}, np.array(drawn)
        if np.isfinite(samples).sum() >= 2:
            if metric == "calibration_error":
                samples = np.maximum(samples + (value - np.nanmean(samples)), 0.0)
            low, high = interval(samples, confidence)
            entries[metric] |= {"low": low, "high": high}
    return entries


def calibration_error(task: str, label: Labels, predictions: pd.DataFrame, weights: Floats | None = None) -> float:
    """How far predictions are off on the whole; 0 is best, nan where it is not defined (no rows).

    - two classes: the expected calibration error Σ (rows in bin / rows) · |mean p − share positive| over BINS bins of
      equal mass (Naeini et al. 2015; equal mass: Nixon et al. 2019). Rows with equal p share a bin.
    - more classes: the same, of the top label's probability against how often it is right (Guo et al. 2017).
    - regression: |mean prediction − mean label| / mean |label|, which is |mean prediction / mean label − 1| for labels
      ≥ 0, and nan where all labels are 0.
    - several labels: the largest of them.
    """
    if isinstance(label, pd.DataFrame):
        of_labels = by_label(label).items()
        return max(calibration_error(task, own, of_output(predictions, o), weights) for o, own in of_labels)
    _check(label, predictions)
    return float(_DayResamples.none(len(label), weights).calibration(task, label, predictions)[0])


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
    """The predictions of a baseline without features, for n rows: the shares of the classes, or mean and quantiles.

    `training` is training.json. Where errors cost something, it decides for the class that costs less.
    """
    baseline = training["baseline"]
    if outputs := training.get("outputs"):
        classes = training["classes"] or {}
        own = {o: {"task": training["task"], "classes": classes.get(o), "baseline": baseline[o]} for o in outputs}
        constant = [baseline_predictions(own[o], n).add_prefix(answer_columns.column(o, "")) for o in outputs]
        return pd.concat(constant, axis=1)
    if training["task"] == "classification":
        constants = {f"p_{c}": share for c, share in zip(training["classes"], baseline["classes"], strict=True)}
    elif training["task"] == "anomaly":  # alerts by chance, as often as its own
        constants = {"prediction": baseline["alert_rate"], "anomaly_score": 0.0}
    else:
        quantiles = baseline["quantiles"]
        constants = {"prediction": baseline["mean"], "q10": quantiles["0.1"], "q90": quantiles["0.9"]}
    frame = pd.DataFrame({column: np.full(n, float(value)) for column, value in constants.items()})
    return frame.assign(prediction=baseline["decides"]) if "decides" in baseline else frame


def baseline_of(training: dict[str, Any], evaluated: pd.DataFrame) -> pd.DataFrame:
    """The baseline's predictions of evaluated rows: of a forecast what the season before says, else constants."""
    if "seasonal_naive" not in evaluated:
        return baseline_predictions(training, len(evaluated))
    return pd.DataFrame(
        {"prediction": evaluated["seasonal_naive"].to_numpy(), "seasonal_error": evaluated["seasonal_error"].to_numpy()}
    )


def coverage(label: Labels, predictions: pd.DataFrame, blocks: Ints, resamples: int, seed: int) -> Floats:
    """The share of labels within [q10, q90]: of all rows, then on each resample of days.

    Raises:
        Unscorable: there are no intervals.
    """
    outside = losses("outside", label, predictions)
    return 1 - _DayResamples.of(blocks, resamples, seed).means(outside)


def slice_names(values: pd.Series[Any]) -> pd.Series[Any]:
    """The slice of each row as a text: 17.0 is `17`, a missing value `(missing)`; beyond MAX_SLICES values `other`."""
    codes, distinct = pd.factorize(values)
    texts = [f"{v:g}" if isinstance(v, float) else str(v) for v in distinct]
    if len(texts) > MAX_SLICES:
        frequent = set(np.argsort(-np.bincount(codes[codes >= 0]), kind="stable")[:MAX_SLICES].tolist())
        texts = [text if i in frequent else "other" for i, text in enumerate(texts)]
    return pd.Series(np.array([*texts, "(missing)"], dtype=object)[codes], index=values.index)


_MEANS: dict[str, tuple[str, Callable[[Floats], Floats]]] = {
    "log_loss": ("log_loss", np.asarray),
    "brier": ("brier", np.asarray),
    "accuracy": ("zero_one", lambda mean: 1 - mean),
    "mae": ("absolute", np.asarray),
    "mase": ("scaled", np.asarray),
    "rmse": ("squared", np.sqrt),
    "poisson": ("poisson", np.asarray),
    "pinball_10": ("pinball_10", np.asarray),
    "pinball_90": ("pinball_90", np.asarray),
    "coverage": ("outside", lambda mean: 1 - mean),
}
"""Metrics that are a mean of a loss over rows: which loss, and what is made of the mean."""


def _measure(
    task: str,
    label: Labels,
    predictions: pd.DataFrame,
    resamples: _DayResamples,
    cost: str | None = None,
) -> dict[str, Floats]:
    """Each defined metric on all rows, and then on each resample: shape (1 + resamples,)."""
    if isinstance(label, pd.DataFrame):
        return _measure_several(task, label, predictions, resamples)
    _check(label, predictions)
    if not resamples.counts_any:
        return {}
    if task == "anomaly":
        return _measure_alerts(label, predictions, resamples)
    measured: dict[str, Floats] = {}
    for metric, (loss, finish) in _MEANS.items():
        is_of_task = (task == "classification") != bool(_LOSSES[loss].columns)
        if is_of_task and not _lacking(loss, label, predictions):
            measured[metric] = finish(resamples.means(_LOSSES[loss].of_rows(label, predictions)))
    if task == "classification":
        measured |= _measure_decisions(label, predictions, resamples, cost)
        measured |= _measure_ranking(label, predictions, resamples)
    calibration = resamples.calibration(task, label, predictions)
    return {**measured, "calibration_error": calibration} if np.isfinite(calibration[0]) else measured


def _measure_several(
    task: str, label: pd.DataFrame, predictions: pd.DataFrame, resamples: _DayResamples
) -> dict[str, Floats]:
    """Of each label on the rows in which it is known; before that the mean over the labels of what all have."""
    by_output: dict[str, dict[str, Floats]] = {}
    for output, of_label in by_label(label).items():
        known, own = of_label.notna().to_numpy(), of_output(predictions, output)
        column = _classes_again(of_label[known], own.columns) if task == "classification" else of_label[known]
        by_output[output] = _measure(task, column, own[known], resamples.among(known))
    first, *others = by_output.values()
    shared = [metric for metric in first if all(metric in other for other in others)]
    means = {metric: np.mean([own[metric] for own in by_output.values()], axis=0) for metric in shared}
    return {**means, **{f"{metric}:{o}": values for o, own in by_output.items() for metric, values in own.items()}}


def _measure_decisions(
    label: Labels, predictions: pd.DataFrame, resamples: _DayResamples, cost: str | None
) -> dict[str, Floats]:
    """precision, recall and f1, where they are defined; of two classes what decisions cost."""
    codes, taken, classes = _codes(label, predictions), decided(predictions), len(_class_columns(predictions))
    hits = resamples.by_class(np.where(codes == taken, codes, -1), classes)
    of_truth, of_answers = resamples.by_class(codes, classes), resamples.by_class(taken, classes)
    both = of_truth + of_answers
    ratios = {
        "precision": _ratio(hits, of_answers),
        "recall": _ratio(hits, of_truth),
        "f1": _ratio(2 * hits, both),
    }
    measured: dict[str, Floats] = {}
    if classes == 2:
        measured = {metric: ratio[:, 1] for metric, ratio in ratios.items()}
        if cost is not None:
            measured["cost"] = resamples.means(losses(cost, label, predictions))
    else:  # a class that never occurs says nothing; one that is never decided for, or never true, is all wrong
        occurs = np.where(both > 0, 1.0, np.nan)
        means = {metric: np.nan_to_num(ratio) * occurs for metric, ratio in ratios.items()}
        measured = {m: np.ma.masked_invalid(ratio).mean(axis=1).filled(np.nan) for m, ratio in means.items()}
    return {metric: values for metric, values in measured.items() if np.isfinite(values[0])}


def _measure_ranking(label: Labels, predictions: pd.DataFrame, resamples: _DayResamples) -> dict[str, Floats]:
    """roc_auc, and for two classes average_precision, where there are rows of both sides."""
    p, codes = _probabilities(predictions), _codes(label, predictions)
    is_binary = p.shape[1] == 2
    chosen = [k for k in ([1] if is_binary else range(p.shape[1])) if 0 < (codes == k).sum() < len(codes)]
    if not chosen:
        return {}
    of_classes = np.stack([resamples.ranking(codes == k, p[:, k]) for k in chosen])  # classes × 2 × (1 + resamples)
    auc, precision = np.ma.masked_invalid(of_classes).mean(axis=0).filled(np.nan)
    return {"roc_auc": auc, "average_precision": precision} if is_binary else {"roc_auc": auc}


def _measure_alerts(label: Labels, predictions: pd.DataFrame, resamples: _DayResamples) -> dict[str, Floats]:
    """alert_rate, and of the rows that have a label whatever can be said of them."""
    alerts, mark = _numbers(predictions["prediction"]), _numbers(label)
    measured, is_known = {"alert_rate": resamples.means(alerts)}, np.isfinite(mark)
    anomaly, of_known = mark[is_known] == 1, resamples.among(is_known)
    hits = alerts[is_known] * anomaly
    for metric, whole in (("precision_at_k", alerts[is_known]), ("recall_at_k", anomaly)):
        if whole.any():
            measured[metric] = _ratio(of_known.sums(hits), of_known.sums(whole))
    if 0 < anomaly.sum() < len(anomaly):
        scores = _numbers(predictions["anomaly_score"])[is_known]
        measured["roc_auc"], measured["average_precision"] = of_known.ranking(anomaly, scores)
    return measured


def precision_differences(
    label: Labels, first: pd.DataFrame, second: pd.DataFrame, blocks: Ints, resamples: int, seed: int
) -> Floats:
    """By how much the average precision of `second` exceeds that of `first`: on all rows, then on each resample.

    Only rows whose label is known count; of both the same days are drawn.

    Raises:
        Unscorable: there are no anomalies among them, or nothing else.
    """
    sides = [_measure_alerts(label, side, _DayResamples.of(blocks, resamples, seed)) for side in (first, second)]
    if "average_precision" not in sides[0]:
        raise Unscorable("an average precision takes rows that are known to be anomalies, and rows known to be none")
    return sides[1]["average_precision"] - sides[0]["average_precision"]


def rank_agreement(one: Floats, other: Floats) -> float:
    """Spearman's rank correlation of two scores of the same rows: 1 in the same order, 0 unrelated or constant."""
    ranks = pd.DataFrame({"one": one, "other": other}).rank().to_numpy()
    centred = ranks - ranks.mean(axis=0)
    length = np.sqrt((centred**2).sum(axis=0).prod())
    return float(centred.prod(axis=1).sum() / length) if length else 0.0


def score_shift(scores: Floats, quantiles: list[float]) -> float:
    """The Kolmogorov-Smirnov distance of scores from those that evenly spaced quantiles stand for: 0 alike, 1 apart."""
    learned, share = np.asarray(quantiles), np.linspace(0, 1, len(quantiles))
    at = np.sort(scores)
    below = np.interp(at, learned, share, left=0.0, right=1.0)
    steps = np.arange(1, len(at) + 1) / len(at)
    return float(np.maximum(np.abs(steps - below), np.abs(steps - 1 / len(at) - below)).max())


# ── bootstrap over days ───────────────────────────────────────────────────────────────────────────


ROW_GROUPS = 1000
"""Rows are resampled in so many groups at most."""


def day_blocks(time: pd.Series[Any]) -> Ints:
    """The day of each row, counted from the first one: shape (rows,). Rows without a time are all of one block."""
    if not len(time) or time.isna().all():
        return np.zeros(len(time), dtype=np.int64)
    days = pd.to_datetime(time).to_numpy().astype("datetime64[D]").astype(np.int64)
    return np.asarray(days - days.min(), dtype=np.int64)


def row_blocks(rows: int) -> Ints:
    """Groups of rows, where rows are exchangeable: shape (rows,)."""
    return np.arange(rows, dtype=np.int64) % ROW_GROUPS


FEWEST_DAYS = 3
"""Of fewer days nothing can be said of how days differ: rows are resampled."""


def blocks(time: pd.Series[Any]) -> tuple[Ints, bool]:
    """What an interval resamples: the day of each row, or, of fewer than FEWEST_DAYS of them, a group of rows.

    Returns:
        The block of each row, and whether it is a day.
    """
    days = day_blocks(time)
    is_by_day = len(np.unique(days)) >= FEWEST_DAYS
    return (days, True) if is_by_day else (row_blocks(len(time)), False)


def bootstrap_means(
    values: npt.NDArray[Any], blocks: Ints, resamples: int, seed: int, weights: Floats | None = None
) -> Floats:
    """Means of `values` over days drawn with replacement: Σ values / Σ rows of the drawn days (a ratio estimator).

    Of D days, D − 1 are drawn each time: with that the spread is unbiased for few days too, where drawing D gives a
    variance that is too small by (D − 1)/D (Rao & Wu 1988, Resampling inference with complex survey data).

    Args:
        values: shape (rows,), or (rows, k) for k means at once.
        blocks: shape (rows,); the day of each row, as `day_blocks` counts it. Only which rows share one matters.
        resamples: how many.
        seed: the same seed and the same days draw the same days: differences of two models are paired by it.
        weights: how often each row counts; shape (rows,).

    Returns:
        Shape (resamples,) or (resamples, k); nan for fewer than two days, of which nothing can be said.
    """
    drawn, numbers = _DayResamples.of(blocks, resamples, seed, weights), np.asarray(values, dtype=np.float64)
    if numbers.ndim == 1:
        return drawn.means(numbers)[1:]
    return np.stack([drawn.means(column)[1:] for column in numbers.T], axis=1)


def ratios(
    part: Floats, whole: Floats, blocks: Ints, resamples: int, seed: int, weights: Floats | None = None
) -> Floats:
    """Σ part / Σ whole, on all rows and then on each resample of blocks: shape (1 + resamples,); nan where it is 0."""
    drawn = _DayResamples.of(blocks, resamples, seed, weights)
    return _ratio(drawn.sums(part), drawn.sums(whole))


def interval(samples: Floats, confidence: float) -> tuple[float, float]:
    """The middle `confidence` of the samples (percentile interval, Efron 1979); samples that are nan are not counted.

    (nan, nan) where none is left.
    """
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return float("nan"), float("nan")
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


class _DayResamples:
    """How often each day counts: once on all rows, and as often as it is drawn in each resample.

    A statistic that is made of sums per day is a product with `weights`, of shape (1 + resamples, days). Within a day,
    rows count as often as `of_rows` says; all alike where that is None.
    """

    def __init__(self, codes: Ints, weights: Floats, of_rows: Floats | None = None) -> None:
        self.codes, self.weights, self.of_rows = codes, weights, of_rows
        self.days = weights.shape[1]
        self._rows = weights @ np.bincount(codes, of_rows, minlength=self.days)

    @staticmethod
    def of(blocks: Ints, resamples: int, seed: int, of_rows: Floats | None = None) -> _DayResamples:
        codes, distinct = pd.factorize(np.asarray(blocks), sort=True)
        days, drawn = len(distinct), np.zeros((resamples, len(distinct)))
        if days > 1:
            drawn += np.random.default_rng(seed).multinomial(days - 1, np.full(days, 1 / days), size=resamples)
        return _DayResamples(codes.astype(np.int64), np.vstack([np.ones(days), drawn]), of_rows)

    @staticmethod
    def none(rows: int, of_rows: Floats | None = None) -> _DayResamples:
        """All rows, and no resample."""
        return _DayResamples.of(np.zeros(rows, dtype=np.int64), 0, 0, of_rows)

    def among(self, chosen: npt.NDArray[np.bool_]) -> _DayResamples:
        """The same days, and of their rows only some."""
        of_rows = None if self.of_rows is None else self.of_rows[chosen]
        return _DayResamples(self.codes[chosen], self.weights, of_rows)

    @property
    def counts_any(self) -> bool:
        """Whether there are rows, and one that weighs something."""
        return bool(self._rows[0] > 0)

    def means(self, values: Floats) -> Floats:
        return _ratio(self.sums(values), self._rows)

    def sums(self, values: npt.NDArray[Any]) -> Floats:
        weighted = values if self.of_rows is None else values * self.of_rows
        return np.asarray(self.weights @ np.bincount(self.codes, weighted, minlength=self.days), dtype=np.float64)

    def by_class(self, codes: Ints, classes: int) -> Floats:
        """How many rows are of each class, those of -1 of none: shape (1 + resamples, classes)."""
        cells, count = self.codes * (classes + 1) + codes + 1, self.days * (classes + 1)
        table = np.bincount(cells, self.of_rows, minlength=count).reshape(self.days, classes + 1)
        return np.asarray(self.weights @ table[:, 1:], dtype=np.float64)

    def calibration(self, task: str, label: Labels, predictions: pd.DataFrame) -> Floats:
        """Σ |what is too much in each bin|, relative to the number of rows or, in a regression, to Σ |label|."""
        if task == "classification":
            confidence, right = top_label(label, predictions)
            bins, excess, size = calibration_bins(confidence), confidence - right, np.ones(len(confidence))
        else:
            y = _numbers(label)
            bins, excess, size = np.zeros(len(y), dtype=np.int64), -_excess(label, predictions), np.abs(y)
        if self.of_rows is not None:
            excess, size = excess * self.of_rows, size * self.of_rows
        gaps = np.bincount(self.codes * BINS + bins, excess, minlength=self.days * BINS).reshape(self.days, BINS)
        sizes = np.bincount(self.codes, size, minlength=self.days)
        return _ratio(np.abs(self.weights @ gaps).sum(axis=1), self.weights @ sizes)

    def ranking(self, positive: npt.NDArray[np.bool_], scores: Floats) -> Floats:
        """roc_auc and average_precision: shape (2, 1 + resamples). The first is exact, the others are moved to it."""
        every = _DayResamples(np.zeros_like(self.codes), np.ones((1, 1)), self.of_rows)
        exact = _ranking(positive, scores, every, limit=len(scores))
        if len(self.weights) == 1:
            return exact
        binned = _ranking(positive, scores, self, limit=THRESHOLDS)
        return np.hstack([exact, np.clip(binned[:, 1:] + (exact - binned[:, :1]), 0.0, 1.0)])


def _ranking(positive: npt.NDArray[np.bool_], scores: Floats, resamples: _DayResamples, limit: int) -> Floats:
    """roc_auc and average_precision on all rows and each resample: shape (2, 1 + resamples); nan where undefined.

    Computed from the rows per day and threshold, thresholds falling; of no more than `limit` thresholds.
    """
    codes, weights, of_rows = resamples.codes, resamples.weights, resamples.of_rows
    hits, ties, between = _by_threshold(positive, scores, resamples, limit)
    upto = np.cumsum(ties + between, axis=1)  # negatives that score above the threshold or equal
    of_negatives = None if of_rows is None else of_rows[~positive]
    negatives = weights @ np.bincount(codes[~positive], of_negatives, minlength=weights.shape[1])
    hits, above, upto = weights @ hits, weights @ (upto - ties), weights @ upto
    positives, taken = hits.sum(axis=1), np.cumsum(hits, axis=1)
    auc = 1 - _ratio((hits * (above + upto)).sum(axis=1) / 2, positives * negatives)
    with np.errstate(divide="ignore", invalid="ignore"):
        precise = np.where(hits > 0, hits * taken / (taken + upto), 0.0).sum(axis=1)
    return np.stack([auc, np.where(negatives > 0, _ratio(precise, positives), np.nan)])


def _by_threshold(
    positive: npt.NDArray[np.bool_], scores: Floats, resamples: _DayResamples, limit: int
) -> tuple[Floats, Floats, Floats]:
    """Positives at each threshold, negatives at it, and negatives above it and below the next: (days, thresholds)."""
    codes, days, of_rows = resamples.codes, resamples.days, resamples.of_rows
    steps = np.unique(scores[positive])
    binned = len(steps) > limit
    if binned:
        steps = np.unique(np.quantile(scores[positive], np.linspace(0, 1, limit + 1)[:-1], method="inverted_cdf"))
    count = len(steps)
    at = count - np.searchsorted(steps, scores, side="right")  # from the highest; `count`: below every positive
    tie = np.ones(len(scores), dtype=bool) if binned else steps[np.minimum(count - 1 - at, count - 1)] == scores

    def table(rows: npt.NDArray[np.bool_]) -> Floats:
        own = None if of_rows is None else of_rows[rows]
        cells = np.bincount(codes[rows] * (count + 1) + at[rows], own, minlength=days * (count + 1))
        return cells.reshape(days, count + 1)[:, :count].astype(np.float64)

    return table(positive), table(~positive & tie), table(~positive & ~tie)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """The ratio part / whole; over 0, as in a resample without rows, nan."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(whole > 0, part / whole, np.nan), dtype=np.float64)
