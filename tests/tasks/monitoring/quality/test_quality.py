"""Quality: measured as training measures it, estimated before labels come, and how far off the estimate was."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.modelling import metrics
from tasks.monitoring.quality import quality

KINDS = [
    ("classification", "log_loss", 2),
    ("classification", "brier", 2),
    ("classification", "log_loss", 4),
    ("classification", "brier", 4),
    ("regression", "absolute", 0),
    ("regression", "squared", 0),
    ("regression", "poisson", 0),
]
EVERY_KIND = pytest.mark.parametrize(("task", "loss", "classes"), KINDS)


def world(
    first: str,
    days: int,
    seed: int,
    *,
    classes: int = 2,
    per_day: int = 150,
    hard: float = 0.0,
    moved: float = 0.0,
    overconfident: float = 1.4,
) -> pd.DataFrame:
    """Days with a luck of their own, that lasts from day to day; a model that is too sure of itself answers them.

    Args:
        first: the first day.
        days: how many.
        seed: of everything.
        classes: 0 for a count.
        per_day: rows.
        hard: what part of the rows moves to where the truth is hard to tell (classes) or large (counts); it is seen.
        moved: how much the relation moved; not seen by the model.
        overconfident: its logits are so many times what they should be.
    """
    rng = np.random.default_rng(seed)
    luck = np.zeros(days)
    for day in range(1, days):
        luck[day] = 0.5 * luck[day - 1] + rng.normal(0, 0.15)
    day, n = np.repeat(np.arange(days), per_day), days * per_day
    times = pd.Timestamp(first) + pd.to_timedelta(day, unit="D") + pd.to_timedelta(rng.integers(0, 24, n), unit="h")
    frame = pd.DataFrame({"time": times, "origin": rng.choice(["EWR", "JFK", "LGA"], n)})
    x = rng.normal(0, 1, n)
    if not classes:
        expected = 10 * np.exp(0.4 * x + hard)
        label = rng.poisson(expected * np.exp(0.5 * luck[day] + moved)).astype(float)
        reach = 1.3 * np.sqrt(expected)
        return frame.assign(label=label, prediction=expected, q10=expected - reach, q90=expected + reach)
    x = np.where(rng.random(n) < hard, 0.1 * x, x)
    logits = np.outer(x, np.linspace(-1.5, 1.5, classes))
    true = logits + np.linspace(0, 1, classes) * (luck[day] + moved)[:, None]
    draw = rng.gumbel(size=(n, classes))
    p = np.exp(overconfident * logits)
    p /= p.sum(axis=1, keepdims=True)
    return frame.assign(label=(true + draw).argmax(axis=1), **{f"p_{k}": p[:, k] for k in range(classes)})


def true_loss(task: str, loss: str, frame: pd.DataFrame) -> float:
    """The mean loss, labels and all."""
    said = frame.drop(columns=["time", "label", "origin"])
    return float(metrics.losses(loss, frame["label"], said).mean())


# ── measured ──────────────────────────────────────────────────────────────────────────────────────


@EVERY_KIND
def test_measures_what_training_measures(task: str, loss: str, classes: int) -> None:
    """The metrics of training, on the rows that have a label, with the loss of the gate among them."""
    frame = world("2013-03-04", 7, 2, classes=classes)
    unknown = np.random.default_rng(0).random(len(frame)) < 0.3
    found = quality.measure(task, loss, frame.assign(label=frame["label"].mask(unknown)), resamples=50)
    known = frame[~unknown]
    said = known.drop(columns=["time", "label", "origin"])
    scores = metrics.score(task, known["label"], said)
    assert {m: v["value"] for m, v in found.metrics.items() if m in scores} == pytest.approx(scores, abs=1e-6)
    assert found.of_loss["value"] == pytest.approx(true_loss(task, loss, known), abs=1e-6)
    assert found.of_loss["low"] < found.of_loss["value"] < found.of_loss["high"]
    assert (found.rows, found.labels, found.days) == (len(frame), len(known), 7)
    assert f"of {len(known):,} labels on 7 days" in found.text


def test_late_labels_and_their_order_make_no_difference() -> None:
    """Labels that came later, rows in another order: the same numbers."""
    frame = world("2013-03-04", 7, 3)
    at_once = quality.measure("classification", "log_loss", frame, ["origin"], resamples=50)
    shuffled = frame.sample(frac=1, random_state=1)
    assert quality.measure("classification", "log_loss", shuffled, ["origin"], resamples=50) == at_once
    partly = quality.measure("classification", "log_loss", frame.assign(label=frame["label"].where(frame.index < 300)))
    assert partly != at_once
    assert partly.labels == 300


def test_slices_are_measured_each() -> None:
    """A slice is measured as the whole is; one of few rows, and a column that is not there, say nothing."""
    frame = world("2013-03-04", 7, 4)
    frame.loc[frame.index[:12], "origin"] = "TEB"
    found = quality.measure("classification", "log_loss", frame, ["origin", "carrier"], resamples=50).slices
    assert list(found) == ["origin"]
    assert list(found["origin"]) == ["EWR", "JFK", "LGA", "TEB"]
    assert found["origin"]["TEB"] == {"rows": 12, "days": 1, "metrics": {}}
    alone = quality.measure("classification", "log_loss", frame[frame["origin"] == "JFK"], resamples=50)
    assert found["origin"]["JFK"]["metrics"] == alone.metrics


def test_small_windows_say_not_enough_data() -> None:
    """Few labels or none: no number, and a reason; of few days a number, without an interval."""
    frame = world("2013-03-04", 2, 5)
    found = quality.measure("classification", "log_loss", frame)
    assert found.of_loss is not None
    assert set(found.of_loss) == {"value"}
    assert found.text == f"log_loss is {found.of_loss['value']:.4g}, of 300 labels on 2 days; an interval takes 3 days"
    few = quality.measure("classification", "log_loss", frame.head(20))
    assert (few.metrics, few.of_loss) == ({}, None)
    assert few.text == "not enough data: 20 of 20 rows have a label; a week takes 30"
    nothing = quality.measure("classification", "log_loss", frame.assign(label=None))
    assert (nothing.labels, nothing.metrics) == (0, {})
    assert quality.measure("classification", "log_loss", frame.iloc[:0]).text.startswith("not enough data: 0 of 0")


# ── estimated ─────────────────────────────────────────────────────────────────────────────────────


@EVERY_KIND
def test_interval_holds_the_loss_that_labels_show_later(task: str, loss: str, classes: int) -> None:
    """In worlds that stay as they are, nine intervals of ten or more hold the loss of the week, and are of some use."""
    held, widths = 0, []
    for seed in range(40):
        year = world("2013-03-01", 35, seed, classes=classes, per_day=60)
        holdout, week = year[year["time"] < "2013-03-29"], year[year["time"] >= "2013-03-29"]
        estimate = quality.LossEstimator.fit(task, loss, holdout).estimate(week.drop(columns="label"))
        held += estimate.low <= true_loss(task, loss, week) <= estimate.high
        widths.append((estimate.high - estimate.low) / estimate.value)
    assert held >= 36
    assert np.median(widths) < 0.75


@pytest.mark.parametrize(("task", "loss", "classes"), KINDS[:-1])  # the deviance of a count is about 1, large or small
def test_estimate_follows_what_is_asked(task: str, loss: str, classes: int) -> None:
    """Where harder rows are asked for, the estimate rises by about what the loss rises by, without any label."""
    year = world("2013-03-01", 28, 7, classes=classes, per_day=400)
    estimator = quality.LossEstimator.fit(task, loss, year)
    usual, harder = (world("2013-04-01", 7, 8, classes=classes, per_day=400, hard=h) for h in (0.0, 0.5))
    guessed = [estimator.estimate(frame.drop(columns="label")) for frame in (usual, harder)]
    rise = true_loss(task, loss, harder) - true_loss(task, loss, usual)
    assert abs(rise) > 0.01
    assert guessed[1].value - guessed[0].value == pytest.approx(rise, rel=0.5)


def test_a_relation_that_moved_is_not_held_and_the_text_says_so() -> None:
    """Equal predictions give an equal estimate; that their labels mean something else now, labels show."""
    year = world("2013-03-01", 28, 9)
    estimator = quality.LossEstimator.fit("classification", "log_loss", year)
    moved = world("2013-04-01", 7, 10, moved=2.5)
    still = world("2013-04-01", 7, 10)
    found = []
    for frame in (moved, still):
        estimate = estimator.estimate(frame.drop(columns="label"))
        found.append(quality.off(estimate, quality.measure("classification", "log_loss", frame)))
    assert found[0].value > 0.1
    assert "too low, outside of its interval" in found[0].text
    assert found[0].text.endswith("so what moved is the relation between features and label")
    assert found[1].text.endswith("within its interval")


def test_labels_of_earlier_windows_correct_the_estimate() -> None:
    """A relation that moved is learned from the weeks whose labels came: the estimate moves, and then holds."""
    holdout, stream = world("2013-03-01", 28, 11), world("2013-04-01", 70, 12, moved=2.0)
    blind = quality.LossEstimator.fit("classification", "log_loss", holdout)
    week = stream[stream["time"] >= "2013-06-03"]
    told = quality.LossEstimator.fit("classification", "log_loss", holdout, stream[stream["time"] < "2013-06-03"])
    truth, asked = true_loss("classification", "log_loss", week), week.drop(columns="label")
    without, later = blind.estimate(asked), told.estimate(asked)
    assert not without.low <= truth <= without.high
    assert later.low <= truth <= later.high
    assert abs(later.value - truth) < abs(without.value - truth) / 3


def test_how_far_off_earlier_estimates_were_counts() -> None:
    """Who was far off before is less sure now; who was not is surer, as more is known; the value stays."""
    year, week = world("2013-03-01", 28, 24), world("2013-04-01", 7, 25)
    usual, wrong, right = (
        quality.LossEstimator.fit("classification", "log_loss", year, past=past).estimate(week)
        for past in ((), (0.2, -0.25, 0.3), (0.001, -0.002) * 10)
    )
    assert wrong.value == right.value == usual.value
    assert wrong.high - wrong.low > usual.high - usual.low > right.high - right.low


def test_few_rows_are_less_sure_than_many() -> None:
    """A window of a tenth of the rows scatters more; and more confidence is a wider interval."""
    year, week = world("2013-03-01", 28, 13, per_day=300), world("2013-04-01", 7, 14, per_day=300)
    wide, wider = (quality.LossEstimator.fit("classification", "log_loss", year, confidence=c) for c in (0.8, 0.99))

    def reach(estimator: quality.LossEstimator, frame: pd.DataFrame) -> float:
        estimate = estimator.estimate(frame)
        return estimate.high - estimate.low

    assert reach(wide, week.iloc[::20]) > 1.1 * reach(wide, week)
    assert reach(wider, week) > 1.5 * reach(wide, week)


def test_order_and_unlabelled_rows_make_no_difference_to_an_estimate() -> None:
    """The same rows in another order, and more of them without labels, are the same calibration."""
    year, week = world("2013-03-01", 28, 15), world("2013-04-01", 7, 16)
    usual = quality.LossEstimator.fit("classification", "brier", year).estimate(week)
    more = pd.concat([year.sample(frac=1, random_state=3), week.assign(label=None)])
    again = quality.LossEstimator.fit("classification", "brier", more).estimate(week.sample(frac=1, random_state=4))
    assert asdict(again) == pytest.approx(asdict(usual), abs=2e-6)


@pytest.mark.parametrize(
    ("days", "of_holdout", "reason"),
    [
        (2, 28, "not enough data: 300 predictions on 2 days; 30 on 3 days are needed"),
        (
            7,
            20,
            "not enough data: labels of 20 days are known; 3 times 7 are needed to know how much a window of 7 days",
        ),
        (0, 28, "not enough data: 0 predictions on 0 days"),
        (7, 0, "not enough data: labels of 0 days are known; 3 times 7 are needed"),
    ],
)
def test_no_estimate_without_enough_data(days: int, of_holdout: int, reason: str) -> None:
    """A window that is too small, a holdout that is too short: nothing is said, and why."""
    year, week = (world(first, 28, 17) for first in ("2013-03-01", "2013-04-01"))
    year, week = year.iloc[: 150 * of_holdout], week.iloc[: 150 * days]
    unlabelled = week.assign(label=np.nan)
    estimator = quality.LossEstimator.fit("classification", "log_loss", year, unlabelled)
    assert estimator.estimate(week) is None
    assert estimator.lacking(week).startswith(reason)


def test_a_holdout_of_equal_predictions_is_enough() -> None:
    """A model that always says the same has one expected loss, and an interval all the same."""
    year, week = (world(f, d, 19).assign(p_0=0.6, p_1=0.4) for f, d in (("2013-03-01", 28), ("2013-04-01", 7)))
    estimate = quality.LossEstimator.fit("classification", "log_loss", year).estimate(week)
    assert estimate.value == pytest.approx(true_loss("classification", "log_loss", year), abs=0.02)
    assert estimate.low < true_loss("classification", "log_loss", week) < estimate.high


def test_small_losses_keep_their_digits() -> None:
    """A target in other units gives the same numbers in those: nothing is rounded to zero."""
    said = ["label", "prediction", "q10", "q90"]
    usual = world("2013-01-01", 56, 24, classes=0), world("2013-03-01", 7, 25, classes=0)
    found = []
    for unit in (1.0, 1e-4):
        holdout, week = (frame.assign(**{name: frame[name] * unit for name in said}) for frame in usual)
        estimate = quality.LossEstimator.fit("regression", "squared", holdout).estimate(week)
        measured = quality.measure("regression", "squared", week, resamples=100)
        off = quality.off(estimate, measured)
        found.append(np.array([*measured.of_loss.values(), estimate.value, estimate.low, estimate.high, off.value]))
    assert found[1] * 1e8 == pytest.approx(found[0], rel=1e-6)


def test_off_waits_for_the_labels() -> None:
    """While a window has labels for few of its rows, nothing is said of how far off its estimate was."""
    year, week = world("2013-03-01", 28, 20), world("2013-04-01", 7, 21)
    estimate = quality.LossEstimator.fit("classification", "log_loss", year).estimate(week)

    def off(share: float) -> Any:
        labels = week["label"].where(week.index < share * len(week))
        return quality.off(estimate, quality.measure("classification", "log_loss", week.assign(label=labels)))

    assert off(0.5) is None
    assert off(0.9) is not None
    assert quality.off(None, quality.measure("classification", "log_loss", week)) is None


def test_classes_that_missing_labels_made_floats_are_classes_again() -> None:
    """A join leaves 1.0 for 1 where a label is missing; where the classes themselves are 1.0, they stay."""
    frame = world("2013-04-01", 7, 23).assign(label=lambda f: f["label"].astype(float))
    usual = quality.measure("classification", "log_loss", frame, resamples=10)
    assert usual.of_loss["value"] < 1
    renamed = frame.rename(columns={"p_0": "p_0.0", "p_1": "p_1.0"})
    assert quality.measure("classification", "log_loss", renamed, resamples=10) == usual


def test_a_broken_label_leaves_the_others_their_classes() -> None:
    """Of 0, 1 and 0.5 only the last is no class."""
    frame = world("2013-04-01", 7, 23)
    broken = frame["label"].astype(float)
    broken.iloc[3] = 0.5
    assert metrics.labelled("classification", frame.assign(label=broken))["label"].tolist() == [
        "0.5" if row == 3 else str(label) for row, label in enumerate(frame["label"])
    ]


def test_predictions_that_are_missing_are_refused() -> None:
    """A prediction that is not a number is a mistake, and is not averaged over."""
    week = world("2013-04-01", 7, 22)
    week.loc[5, "p_1"] = np.nan
    with pytest.raises(metrics.Unscorable, match="p_1 is missing or infinite in 1 of 1050 predictions"):
        quality.measure("classification", "log_loss", week)
    with pytest.raises(metrics.Unscorable, match="p_1 is missing or infinite"):
        quality.LossEstimator.fit("classification", "log_loss", week)
    estimator = quality.LossEstimator.fit("classification", "log_loss", world("2013-03-01", 28, 22))
    with pytest.raises(metrics.Unscorable, match="missing or infinite in 1 of 1,050 predictions"):
        estimator.estimate(week)


def alerts(marks: list[float | None]) -> pd.DataFrame:
    """Ten days of scores, of which a tenth raise an alert; the marks are repeated."""
    score = np.tile(np.arange(10) - 8.5, 20)
    time = pd.Timestamp("2013-04-01") + pd.to_timedelta(np.arange(200) // 20, unit="D")
    marks = np.resize(np.array(marks, dtype=object), 200)
    return pd.DataFrame({"time": time, "label": marks, "prediction": (score > 0) * 1.0, "anomaly_score": score})


@pytest.mark.parametrize(
    ("marks", "text"),
    [
        ([None], "10.00% of 200 rows raised an alert; no average_precision: 0 rows have a label, which must be of"),
        (
            [0, None],
            "10.00% of 200 rows raised an alert; no average_precision: 100 rows have a label, which must be of",
        ),
        ([0] * 9 + [1], "average_precision is 1 (1 to 1), of 200 labels on 10 days"),
    ],
    ids=["no labels", "no anomaly among them", "labels"],
)
def test_alerts_are_counted_without_labels_and_judged_with_them(marks: list[float | None], text: str) -> None:
    """A week of an anomaly model is never without a true sentence."""
    told = quality.measure("anomaly", "average_precision", alerts(marks), resamples=100)
    assert told.text.startswith(text)
    assert told.metrics["alert_rate"]["value"] == 0.1
