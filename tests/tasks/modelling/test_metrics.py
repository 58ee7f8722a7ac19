"""Metrics against scikit-learn and scipy; intervals against simulation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.ground.errors import Mistake
from tasks.modelling import metrics


def binary(rows: int = 400, seed: int = 0, ties: int | None = None) -> tuple[pd.Series, pd.DataFrame]:
    """Labels of two classes, and probabilities that rank them somewhat."""
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 4, rows)
    label = pd.Series((rng.random(rows) < p**1.3).astype(int))
    p = np.round(p, ties) if ties is not None else p
    return label, pd.DataFrame({"p_0": 1 - p, "p_1": p})


def multiclass(rows: int = 600, classes: int = 5, seed: int = 0) -> tuple[pd.Series, pd.DataFrame]:
    """Labels of several classes, drawn with the probabilities that are predicted."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), rows)
    label = pd.Series([int(rng.choice(classes, p=row)) for row in p])
    return label, pd.DataFrame(p, columns=[f"p_{k}" for k in range(classes)])


def counts(rows: int = 500, seed: int = 0) -> tuple[pd.Series, pd.DataFrame]:
    """Poisson counts, and predictions that are a tenth too high."""
    rng = np.random.default_rng(seed)
    mean = rng.gamma(3, 2, rows)
    label = pd.Series(rng.poisson(mean).astype(float))
    quantiles = {"q10": stats.poisson.ppf(0.1, mean), "q90": stats.poisson.ppf(0.9, mean)}
    return label, pd.DataFrame({"prediction": mean * 1.1, **quantiles})


# ── metrics ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ties", [None, 2, 1])
def test_two_classes_as_scikit_learn(ties):
    """Every metric of two classes is scikit-learn's, ties and all."""
    label, predictions = binary(ties=ties)
    p, answers = predictions["p_1"], predictions.to_numpy().argmax(axis=1)
    assert metrics.score("classification", label, predictions) == pytest.approx(
        {
            "log_loss": reference.log_loss(label, predictions),
            "brier": reference.brier_score_loss(label, p),
            "roc_auc": reference.roc_auc_score(label, p),
            "average_precision": reference.average_precision_score(label, p),
            "accuracy": reference.accuracy_score(label, answers),
            "precision": reference.precision_score(label, answers),
            "recall": reference.recall_score(label, answers),
            "f1": reference.f1_score(label, answers),
            "calibration_error": metrics.calibration_error("classification", label, predictions),
        },
        rel=1e-12,
    )


def test_more_classes_as_scikit_learn():
    """Log loss, Brier, accuracy, macro averages and one-against-the-rest ROC AUC are scikit-learn's."""
    label, predictions = multiclass()
    answers = predictions.to_numpy().argmax(axis=1)
    found = metrics.score("classification", label, predictions)
    found.pop("calibration_error")
    assert found == pytest.approx(
        {
            "log_loss": reference.log_loss(label, predictions),
            "brier": reference.brier_score_loss(label, predictions),
            "accuracy": reference.accuracy_score(label, answers),
            "precision": reference.precision_score(label, answers, average="macro"),
            "recall": reference.recall_score(label, answers, average="macro"),
            "f1": reference.f1_score(label, answers, average="macro"),
            "roc_auc": reference.roc_auc_score(label, predictions, multi_class="ovr", average="macro"),
        },
        rel=1e-12,
    )


def test_regression_as_scikit_learn():
    """The errors, the Poisson deviance and the pinball losses are scikit-learn's; coverage is a plain share."""
    label, predictions = counts()
    m, low, high = predictions["prediction"], predictions["q10"], predictions["q90"]
    assert metrics.score("regression", label, predictions) == pytest.approx(
        {
            "mae": reference.mean_absolute_error(label, m),
            "rmse": reference.root_mean_squared_error(label, m),
            "poisson": reference.mean_poisson_deviance(label, m),
            "pinball_10": reference.mean_pinball_loss(label, low, alpha=0.1),
            "pinball_90": reference.mean_pinball_loss(label, high, alpha=0.9),
            "coverage": float(((label >= low) & (label <= high)).mean()),
            "calibration_error": abs(m.mean() / label.mean() - 1),
        },
        rel=1e-12,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0])), min_size=2, max_size=40
    ).filter(lambda rows: len({positive for positive, _ in rows}) == 2)
)
def test_ranking_with_any_ties(rows):
    """ROC AUC and average precision are scikit-learn's for any labels and any tied scores."""
    positive, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    found = metrics.score("classification", positive, pd.DataFrame({"p_False": 1 - scores, "p_True": scores}))
    assert found["roc_auc"] == pytest.approx(reference.roc_auc_score(positive, scores))
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(positive, scores))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("names", [(0, 1), (False, True), ("no", "yes")])
def test_decisions_are_judged_as_they_were_made(threshold, names):
    """Not as the most probable class: with a column that names the class, of any type, also as a log has it."""
    code, predictions = binary()
    taken = (predictions["p_1"] >= threshold).astype(int)
    label, answers = (values.map(dict(enumerate(names))) for values in (code, taken))
    named = predictions.set_axis([f"p_{name}" for name in names], axis=1)
    for as_logged in (answers, answers.map(lambda name: float(name) if type(name) is int else str(name))):
        found = metrics.score("classification", label, named.assign(prediction=as_logged))
        assert found["precision"] == pytest.approx(reference.precision_score(code, taken))
        assert found["recall"] == pytest.approx(reference.recall_score(code, taken))
        assert found["accuracy"] == pytest.approx((code == taken).mean())
        assert found["log_loss"] == pytest.approx(reference.log_loss(code, predictions))


def test_a_cost_is_the_mean_of_what_errors_cost():
    """The loss of each row, and the metric; what costs nothing is a decision that is right."""
    label, predictions = binary()
    decided = predictions.assign(prediction=(predictions["p_1"] >= 0.1).astype(int))
    (_, false_positive), (false_negative, _) = reference.confusion_matrix(label, decided["prediction"])
    expected = (2 * false_positive + 7.5 * false_negative) / len(label)
    assert metrics.losses("cost(2, 7.5)", label, decided).mean() == pytest.approx(expected)
    assert metrics.score("classification", label, decided, cost="cost(2, 7.5)")["cost"] == pytest.approx(expected)
    with pytest.raises(metrics.Unscorable, match="it is of two classes, the predictions have 5"):
        metrics.losses("cost(2, 7.5)", *multiclass())


@pytest.mark.parametrize("task", ["two", "more", "regression"])
def test_a_weight_of_three_is_three_rows(task):
    """In every metric, and in every resample of days."""
    label, predictions = {"two": binary, "more": multiclass, "regression": counts}[task](rows=300)
    kind = "regression" if task == "regression" else "classification"
    days = np.arange(300) // 30
    weights = np.random.default_rng(1).integers(0, 4, 300).astype(float)
    repeated = np.repeat(np.arange(300), weights.astype(int))
    found = metrics.score(kind, label, predictions, weights=weights)
    expected = metrics.score(kind, label.iloc[repeated], predictions.iloc[repeated])
    found.pop("calibration_error"), expected.pop("calibration_error")  # its bins hold equally many rows, not weights
    assert found == pytest.approx(expected)
    drawn = metrics.score_with_intervals(kind, label, predictions, days, resamples=50, weights=weights)
    again = metrics.score_with_intervals(
        kind, label.iloc[repeated], predictions.iloc[repeated], days[repeated], resamples=50
    )
    for metric in expected:
        assert drawn[metric] == pytest.approx(again[metric], rel=0.02), metric


def test_losses_average_to_metrics():
    """A model's loss is the mean of its rows' losses."""
    label, predictions = multiclass()
    for name in ("log_loss", "brier"):
        rows = metrics.losses(name, label, predictions)
        assert rows.shape == (len(label),)
        assert rows.mean() == pytest.approx(metrics.score("classification", label, predictions)[name])
    label, predictions = counts()
    for name, metric in (("absolute", "mae"), ("poisson", "poisson")):
        rows = metrics.losses(name, label, predictions)
        assert rows.mean() == pytest.approx(metrics.score("regression", label, predictions)[metric])


def test_certain_and_wrong_is_finite():
    """A probability of 0 for what came true costs much, not infinitely much."""
    label, predictions = pd.Series([1, 0]), pd.DataFrame({"p_0": [1.0, 1.0], "p_1": [0.0, 0.0]})
    assert metrics.losses("log_loss", label, predictions) == pytest.approx([-np.log(metrics.EPSILON), 0], abs=1e-12)


def test_class_never_seen():
    """A class that the model does not know counts as probability 0, and as a wrong answer."""
    _, predictions = multiclass(rows=3, classes=3)
    label = pd.Series([0, 1, 9])
    assert metrics.losses("log_loss", label, predictions)[2] == pytest.approx(-np.log(metrics.EPSILON))
    assert metrics.losses("zero_one", label, predictions)[2] == 1
    expected = (predictions.iloc[2] ** 2).sum() + 1  # none of its classes came true, and one it gave nothing to
    assert metrics.losses("brier", label, predictions)[2] == pytest.approx(expected)


def test_labels_of_any_type():
    """Classes are found by their name: texts, booleans and numbers alike."""
    _, predictions = binary(rows=4)
    numbers = metrics.score("classification", pd.Series([0, 1, 1, 0]), predictions)
    for names, labels in (("no", "yes"), ["no", "yes", "yes", "no"]), (("False", "True"), [False, True, True, False]):
        renamed = predictions.set_axis([f"p_{n}" for n in names], axis=1)
        assert metrics.score("classification", pd.Series(labels), renamed) == numbers


def test_slice_of_one_class():
    """Where all labels are equal, what ranks is left out, and the rest is there."""
    _, predictions = binary(rows=50)
    found = metrics.score("classification", pd.Series(np.zeros(50, dtype=int)), predictions)
    assert set(found) == {"log_loss", "brier", "calibration_error", "accuracy", "precision", "f1"}
    assert "recall" not in found, "of no row that is positive none can be found"
    _, predictions = multiclass(rows=50)
    assert "roc_auc" not in metrics.score("classification", pd.Series(np.full(50, 3)), predictions)


def test_auc_of_the_classes_that_are_there():
    """A class without rows is left out of the mean of the AUCs."""
    label, predictions = multiclass(rows=500, classes=3)
    kept = label != 2
    label, predictions = label[kept].reset_index(drop=True), predictions[kept].reset_index(drop=True)
    expected = np.mean([reference.roc_auc_score(label == k, predictions[f"p_{k}"]) for k in (0, 1)])
    assert metrics.score("classification", label, predictions)["roc_auc"] == pytest.approx(expected)


def test_poisson_only_of_counts():
    """The Poisson deviance is left out of the score, and refused as a loss, where it is not defined."""
    predictions = pd.DataFrame({"prediction": [1.0, 2.0]})
    assert "poisson" not in metrics.score("regression", pd.Series([-1.0, 2.0]), predictions)
    assert "poisson" not in metrics.score("regression", pd.Series([1.0, 2.0]), predictions - 1)
    with pytest.raises(Mistake, match="there are labels below 0"):
        metrics.losses("poisson", pd.Series([-1.0, 2.0]), predictions)
    with pytest.raises(Mistake, match="it needs predictions above 0"):
        metrics.losses("poisson", pd.Series([1.0, 2.0]), predictions - 1)


def test_no_rows():
    """No rows have no metrics."""
    label, predictions = binary()
    assert metrics.score("classification", label[:0], predictions[:0]) == {}
    assert np.isnan(metrics.calibration_error("classification", label[:0], predictions[:0]))


def test_refusals_say_why():
    """What cannot be scored is refused with the reason: also to those who catch a ValueError, as the gate does."""
    label, predictions = binary(rows=3)
    with pytest.raises(ValueError, match="p_1 is missing or infinite in 1 of 3 predictions"):
        metrics.score("classification", label, predictions.assign(p_1=[0.1, np.nan, 0.2]))
    with pytest.raises(Mistake, match="2 labels and 3 predictions"):
        metrics.losses("brier", label[:2], predictions)
    with pytest.raises(Mistake, match="no loss 'log_los'; did you mean 'log_loss'"):
        metrics.losses("log_los", label, predictions)
    with pytest.raises(Mistake, match="the predictions have no column prediction"):
        metrics.losses("absolute", label, predictions)
    with pytest.raises(Mistake, match="no columns p_<class>"):
        metrics.losses("log_loss", label, pd.DataFrame({"prediction": [1.0, 1.0, 1.0]}))


# ── calibration ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("p", "label", "error"),
    [
        (np.repeat([0.2, 0.6], 10), [1] * 4 + [0] * 6 + [1] * 5 + [0] * 5, (0.2 + 0.1) / 2),
        (np.full(100, 0.3), [1] * 30 + [0] * 70, 0),
    ],
)
def test_calibration_error_by_hand(p, label, error):
    """Two groups that come true in 0.4 and 0.5; equal predictions share a bin, in whatever order the rows come."""
    predictions = pd.DataFrame({"p_0": 1 - p, "p_1": p})
    assert metrics.calibration_error("classification", pd.Series(label), predictions) == pytest.approx(error, abs=1e-12)


def test_calibration_tells_good_from_bad():
    """Probabilities that were drawn from are calibrated; squared ones are not; of many classes the top label counts."""
    label, predictions = binary(rows=20_000)
    assert metrics.calibration_error("classification", label, predictions) > 0.05  # drawn with p**1.3
    label, predictions = multiclass(rows=5000)
    sharp = predictions**3
    sharp = sharp.div(sharp.sum(axis=1), axis=0)
    assert metrics.calibration_error("classification", label, predictions) < 0.04
    assert metrics.calibration_error("classification", label, sharp) > 0.1


def test_calibration_of_regression_near_zero():
    """Labels of both signs and all-zero labels do not divide by zero."""
    predictions = pd.DataFrame({"prediction": [1.0, 1.0]})
    assert metrics.calibration_error("regression", pd.Series([-2.0, 2.0]), predictions) == pytest.approx(0.5)
    assert np.isnan(metrics.calibration_error("regression", pd.Series([0.0, 0.0]), predictions))
    assert "calibration_error" not in metrics.score("regression", pd.Series([0.0, 0.0]), predictions)


# ── intervals ─────────────────────────────────────────────────────────────────────────────────────


def covers(draws: int, by_day: bool) -> float:
    """How often the 95 % interval of a mean covers it, where each of 30 days shifts its 40 rows together."""
    rng = np.random.default_rng(1)
    hits = 0
    blocks = np.repeat(np.arange(30), 40)
    for i in range(draws):
        values = rng.normal(size=len(blocks)) + np.repeat(rng.normal(size=30), 40)
        low, high = metrics.interval(
            metrics.bootstrap_means(values, blocks if by_day else np.arange(len(blocks)), 200, seed=i), 0.95
        )
        hits += low <= 0 <= high
    return hits / draws


def test_interval_by_day_covers():
    """Rows of a day err together: the interval over days covers the truth as often as it says."""
    assert 0.90 <= covers(300, by_day=True) <= 0.985


def test_interval_by_row_does_not():
    """The interval that takes rows for independent misses the truth more often than it hits."""
    assert covers(25, by_day=False) < 0.5


def test_spread_is_unbiased_for_few_days():
    """The variance of the resampled means is that of a mean of days, s²/n, for few days too."""
    values = np.random.default_rng(2).normal(size=6)
    samples = metrics.bootstrap_means(values, np.arange(6), 40_000, seed=0)
    assert samples.var() == pytest.approx(values.var(ddof=1) / 6, rel=0.05)
    assert samples.mean() == pytest.approx(values.mean(), abs=0.02)


def test_means_are_ratios_of_sums():
    """A resample's mean weighs days by their rows: drawing one of two days gives that day's mean."""
    samples = metrics.bootstrap_means(np.array([1.0, 1.0, 1.0, 5.0]), np.array([7, 7, 7, 9]), 200, seed=0)
    assert set(samples) == {1.0, 5.0}


def test_same_seed_pairs_two_models():
    """One seed draws the same days for two series of values, so their difference can be taken resample by resample."""
    rng = np.random.default_rng(0)
    first, second, blocks = rng.random(100), rng.random(100), np.repeat(np.arange(10), 10)
    apart = metrics.bootstrap_means(first, blocks, 50, 3) - metrics.bootstrap_means(second, blocks, 50, 3)
    assert apart == pytest.approx(metrics.bootstrap_means(first - second, blocks, 50, 3))
    both = metrics.bootstrap_means(np.column_stack([first, second]), blocks, 50, 3)
    assert (both[:, 0] == metrics.bootstrap_means(first, blocks, 50, 3)).all()


def test_one_day_says_nothing():
    """Of one day there is no spread between days: nan, and no interval, rather than one of width zero."""
    samples = metrics.bootstrap_means(np.arange(5.0), np.zeros(5, dtype=int), 100, 0)
    assert np.isnan(samples).all()
    assert np.isnan(metrics.interval(samples, 0.95)).all()
    label, predictions = binary(rows=60)
    found = metrics.score_with_intervals("classification", label, predictions, np.zeros(60, dtype=int), resamples=100)
    assert all(set(entry) == {"value"} for entry in found.values())


@pytest.mark.parametrize("kind", ["binary", "multiclass", "counts"])
def test_every_metric_has_an_interval(kind):
    """Each metric of the score is there with low and high, deterministic, and its value the same as without."""
    label, predictions = {"binary": binary, "multiclass": multiclass, "counts": counts}[kind]()
    task = "regression" if kind == "counts" else "classification"
    blocks = np.arange(len(label)) // 20
    found = metrics.score_with_intervals(task, label, predictions, blocks, resamples=300)
    values = {metric: entry["value"] for metric, entry in found.items()}
    assert values == pytest.approx(metrics.score(task, label, predictions), rel=1e-12)
    for metric, entry in found.items():
        assert entry["low"] <= entry["value"] <= entry["high"], metric
        assert entry["low"] < entry["high"], metric
    assert found == metrics.score_with_intervals(task, label, predictions, blocks, resamples=300)


def test_resampled_ranking_is_exact():
    """AUC and average precision of a resample are those of the drawn days' rows laid one after the other."""
    label, predictions = binary(rows=300, ties=2)
    days = np.arange(300) // 30
    plan = metrics._DayResamples.of(days, 5, 0)
    found = plan.ranking(label.to_numpy() == 1, predictions["p_1"].to_numpy())
    for i, weights in enumerate(plan.weights):
        rows = np.concatenate([np.repeat(np.flatnonzero(days == d), int(w)) for d, w in enumerate(weights)])
        expected = metrics.score("classification", label.iloc[rows], predictions.iloc[rows])
        assert found[:, i] == pytest.approx([expected["roc_auc"], expected["average_precision"]])


def test_binned_ranking_is_near():
    """With more scores than thresholds a resample differs from the exact one by far less than resamples differ."""
    label, predictions = binary(rows=6000)
    assert label.sum() > 3 * metrics.THRESHOLDS
    positive, scores, days = label.to_numpy() == 1, predictions["p_1"].to_numpy(), np.arange(6000) // 200
    plan = metrics._DayResamples.of(days, 20, 0)
    found = plan.ranking(positive, scores)
    exact = metrics._ranking(positive, scores, plan, limit=len(scores))
    apart = np.sqrt(((found - exact) ** 2).mean(axis=1))
    assert (apart < 0.1 * exact.std(axis=1)).all()


# ── small things ──────────────────────────────────────────────────────────────────────────────────


def test_day_blocks_count_days():
    """A row's block is its calendar day, whatever the hour, from 0."""
    time = pd.Series(pd.to_datetime(["2013-03-02 00:00", "2013-03-01 23:59", "2013-03-02 23:59", "2013-03-05 12:00"]))
    assert metrics.day_blocks(time).tolist() == [1, 0, 1, 4]
    assert metrics.day_blocks(time.astype("datetime64[us]")).tolist() == [1, 0, 1, 4]
    assert len(metrics.day_blocks(time[:0])) == 0


def test_baseline_never_looks_at_a_row():
    """The baseline says the shares of the classes, or the mean and the quantiles, to every row."""
    said = metrics.baseline_predictions(
        {"task": "classification", "classes": ["a", "b"], "baseline": {"classes": [0.25, 0.75]}}, 3
    )
    assert said.to_dict("list") == {"p_a": [0.25] * 3, "p_b": [0.75] * 3}
    quantiles = {"0.1": 1, "0.9": 9}
    said = metrics.baseline_predictions(
        {"task": "regression", "classes": None, "baseline": {"mean": 4, "quantiles": quantiles}}, 2
    )
    assert said.to_dict("list") == {"prediction": [4.0] * 2, "q10": [1.0] * 2, "q90": [9.0] * 2}
    label, _ = binary()
    shares = [1 - label.mean(), label.mean()]
    training = {"task": "classification", "classes": [0, 1], "baseline": {"classes": shares}}
    found = metrics.score("classification", label, metrics.baseline_predictions(training, len(label)))
    assert found["roc_auc"] == 0.5
    assert found["average_precision"] == pytest.approx(label.mean())
    assert found["log_loss"] == pytest.approx(stats.entropy(shares))


def test_slice_names():
    """Whole numbers lose their point, missing values have a slice, and rare values of many share one."""
    assert metrics.slice_names(pd.Series([17.0, 0.5, None])).tolist() == ["17", "0.5", "(missing)"]
    assert metrics.slice_names(pd.Series(["UA", None], dtype="str")).tolist() == ["UA", "(missing)"]
    many = pd.Series([f"v{i}" for i in range(60)] + ["v59"] * 5)
    names = metrics.slice_names(many)
    assert names.nunique() == metrics.MAX_SLICES + 1
    assert (names == "v59").sum() == 6
    assert (names == "other").sum() == 10


def test_headline_is_a_metric_of_its_task():
    """The metric that stands for a model is among its metrics."""
    assert metrics.headline("classification") in metrics.score("classification", *binary())
    assert metrics.headline("regression") in metrics.score("regression", *counts())


# ── anomalies ─────────────────────────────────────────────────────────────────────────────────────


def marked(rows: int = 900, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """Scores, and marks of anomalies that a third of the rows do not have."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=rows).round(2)
    mark = (score + rng.normal(size=rows) > 2.5).astype(float)
    mark[::3] = np.nan
    return mark, pd.DataFrame({"prediction": (score > 1.5).astype(float), "anomaly_score": score - 1.5})


def test_anomalies_are_measured_as_scikit_learn_does_where_the_mark_is_known():
    """With k the number of alerts, precision and recall at k are those of the alerts."""
    mark, predictions = marked()
    known = np.isfinite(mark)
    truth, alerts, score = mark[known], predictions["prediction"][known], predictions["anomaly_score"][known]
    assert metrics.score("anomaly", mark, predictions) == pytest.approx(
        {
            "alert_rate": predictions["prediction"].mean(),
            "average_precision": reference.average_precision_score(truth, score),
            "roc_auc": reference.roc_auc_score(truth, score),
            "precision_at_k": reference.precision_score(truth, alerts),
            "recall_at_k": reference.recall_score(truth, alerts),
        }
    )


@pytest.mark.parametrize(
    ("marks", "defined"), [(np.nan, set()), (0.0, {"precision_at_k"}), (1.0, {"precision_at_k", "recall_at_k"})]
)
def test_marks_that_are_all_alike_say_little(marks, defined):
    """Nothing can be ranked where all rows are anomalies, or none is, or nothing is known."""
    _, predictions = marked()
    assert set(metrics.score("anomaly", np.full(len(predictions), marks), predictions)) == {"alert_rate", *defined}


def test_average_precisions_of_two_models_are_compared_on_the_same_days():
    """The difference of a model to itself is 0 in every resample; a worse one is worse in nearly all."""
    mark, predictions = marked()
    days = np.arange(len(mark)) // 30
    noise = np.random.default_rng(1).normal(scale=2, size=len(mark))
    worse = predictions.assign(anomaly_score=predictions["anomaly_score"] + noise)
    assert not metrics.precision_differences(mark, predictions, predictions, days, 50, 0).any()
    drawn = metrics.precision_differences(mark, worse, predictions, days, 50, 0)
    assert drawn[0] > 0.05
    assert (drawn[1:] > 0).mean() > 0.9


def test_ranks_and_shifts_as_scipy():
    """Spearman's correlation, and the Kolmogorov-Smirnov distance from quantiles of the rows learned from."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=500), rng.normal(size=500).round(1)
    assert metrics.rank_agreement(one, one + other) == pytest.approx(stats.spearmanr(one, one + other).statistic)
    assert metrics.rank_agreement(one, np.zeros(500)) == 0
    learned = list(np.quantile(one, np.linspace(0, 1, 101)))
    assert metrics.score_shift(other + 1, learned) == pytest.approx(stats.ks_2samp(one, other + 1).statistic, abs=0.02)


# ── several labels ────────────────────────────────────────────────────────────────────────────────


def test_of_several_labels_each_is_as_alone_and_the_mean_is_plain():
    """Also where one of them has not come in some rows: of the loss of a row both are needed."""
    rng = np.random.default_rng(0)
    p, truth = rng.random(200), rng.random(200)
    frame = pd.DataFrame(
        {"a:label": (rng.random(200) < p).astype(float), "b:label": np.where(truth < 0.4, "x", "y")}
        | {"a:p_0": 1 - p, "a:p_1": p, "b:p_x": 0.4, "b:p_y": 0.6}
    )
    frame.loc[:49, "a:label"] = np.nan
    label, predictions = metrics.label_of(frame), metrics.predictions_of(frame)
    scores = metrics.score("classification", label, predictions)
    a = metrics.score("classification", frame["a:label"][50:].astype(int), metrics.of_output(predictions, "a")[50:])
    b = metrics.score("classification", frame["b:label"], metrics.of_output(predictions, "b"))
    assert {f"{name}:a": value for name, value in a.items()}.items() <= scores.items()
    assert scores["log_loss"] == pytest.approx((a["log_loss"] + b["log_loss"]) / 2)
    whole = metrics.labelled("classification", frame)
    assert len(whole) == 150
    assert metrics.has_label(frame).all()
    losses = metrics.losses("log_loss", metrics.label_of(whole), metrics.predictions_of(whole))
    assert losses.mean() == pytest.approx(
        (a["log_loss"] + metrics.losses("log_loss", b_label(whole), metrics.of_output(whole, "b")).mean()) / 2
    )


def b_label(frame):
    """The second label."""
    return frame["b:label"]
