"""The gate: each check both ways, what it does when a check cannot run, and how often it errs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ground import params
from tasks.modelling import rows
from tasks.release import comparison
from tasks.release.gate import gate, verdict_chart
from tasks.release.gate.training_overlap import TrainingOverlap
from tasks.release.gate.verdict import Check, Verdict

FEATURES = {
    "origin": {"type": "category", "nullable": False},
    "hour": {"type": "integer", "min": 0, "max": 23, "nullable": False},
    "temp": {"type": "number", "min": -80, "max": 140, "nullable": True},
}
NOBODY = np.array([], dtype=np.uint64)


def rule(**changed: Any) -> params.Gate:
    """A rule for frames of some hundred rows."""
    usual = {
        "rule": "better",
        "loss": "log_loss",
        "margin": 0.01,
        "champion_age": 2,
        "min_rows": 100,
        "floors": {"roc_auc": 0.6},
        "ceilings": {"log_loss": 0.69},
        "slice_min_rows": 50,
        "slice_margin": 0.02,
        "calibration": 0.1,
        "latency_ms": 25,
        "size_mb": 20,
    }
    return params.Gate(**{**usual, **changed})


def scored(logit: Any) -> pd.DataFrame:
    """Predictions from logits."""
    p = 1 / (1 + np.exp(-np.asarray(logit, dtype=float)))
    return pd.DataFrame({"p_0": 1 - p, "p_1": p})


class Flights:
    """Holdout rows whose truth is known, and predictions as far from it as one likes."""

    def __init__(self, n: int = 1500, days: int = 20, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.draw, self.n = draw, n
        day = np.sort(draw.integers(0, days, n))
        self.truth = draw.normal(0, 1.5, n) + draw.normal(0, 0.4, days)[day]
        label = (draw.random(n) < 1 / (1 + np.exp(-self.truth))).astype("int64")
        self.frame = pd.DataFrame(
            {
                "id": [f"f{i}" for i in range(n)],
                "time": pd.Timestamp("2013-08-01") + pd.to_timedelta(day, unit="D"),
                "label": label,
                "origin": draw.choice(["EWR", "JFK", "LGA"], n),
            }
        )

    def noisy(self, noise: float) -> Any:
        """Logits that are off by so much."""
        return self.truth + self.draw.normal(0, noise, self.n) if noise else self.truth.copy()

    def case(self, challenger: Any, champion: Any = None, **changed: Any) -> gate.Comparison:
        """A comparison of two sets of logits."""
        share = self.frame["label"].mean()
        usual = {
            "model": "late",
            "task": "classification",
            "holdout": self.frame,
            "slices": ("origin",),
            "challenger": gate.Contender("c" * 16, scored(challenger), NOBODY, FEATURES),
            "champion": None if champion is None else gate.Contender("a" * 16, scored(champion), NOBODY, FEATURES),
            "baseline": scored(np.full(self.n, np.log(share / (1 - share)))),
            "champion_age": 3,
            "latency_ms": 3.0,
            "size_mb": 1.0,
        }
        return gate.Comparison(**{**usual, **changed})


def failed(verdict: Verdict) -> set[str]:
    """The names of the checks that failed."""
    return {check.name for check in verdict.checks if not check.passed}


def check(verdict: Verdict, name: str) -> Check:
    """One check."""
    return next(c for c in verdict.checks if c.name == name)


@pytest.fixture
def flights() -> Flights:
    """Flights."""
    return Flights()


# ── the answer ────────────────────────────────────────────────────────────────────────────────────


def test_better_challenger_is_promoted(flights: Flights) -> None:
    """A challenger that is beyond doubt better passes every check."""
    verdict = gate.judge(flights.case(flights.noisy(0), flights.noisy(1.5)), rule())
    assert verdict.promoted
    assert failed(verdict) == set()
    improvement = check(verdict, "improvement")
    assert improvement.interval is not None
    assert improvement.interval[0] < improvement.value < improvement.interval[1] < 0  # type: ignore[operator]
    assert "promoted: all" in verdict.summary


def test_first_candidate_is_judged_against_baseline_and_floors(flights: Flights) -> None:
    """Without a champion every check is there all the same, and those that need one say so."""
    verdict = gate.judge(flights.case(flights.noisy(0)), rule())
    assert verdict.promoted
    assert verdict.champion is None
    assert [c.name for c in verdict.checks] == [
        "rows_unseen", "floors:roc_auc", "ceilings:log_loss", "beats_baseline", "improvement",
        "slice:origin=EWR", "slice:origin=JFK", "slice:origin=LGA", "calibration", "latency", "size", "schema",
    ]  # fmt: skip
    not_applicable = {c.name for c in verdict.checks if c.reason == "no champion yet"}
    assert not_applicable == {"improvement", "schema", "slice:origin=EWR", "slice:origin=JFK", "slice:origin=LGA"}


def test_shuffled_labels_are_refused(flights: Flights) -> None:
    """A challenger trained on shuffled labels knows nothing, and is refused with and without a champion."""
    shuffled = flights.draw.permutation(flights.truth) * 0.3
    first = gate.judge(flights.case(shuffled), rule())
    assert {"floors:roc_auc", "beats_baseline"} <= failed(first)
    against = gate.judge(flights.case(shuffled, flights.noisy(0.5)), rule())
    assert {"floors:roc_auc", "beats_baseline", "improvement"} <= failed(against)


def test_better_overall_but_much_worse_in_one_slice_is_refused(flights: Flights) -> None:
    """The slice is named."""
    flights.frame.loc[flights.frame.index % 12 == 0, "origin"] = "SWF"
    bad = (flights.frame["origin"] == "SWF").to_numpy()
    champion = flights.noisy(2.0)
    challenger = np.where(bad, champion - 1.2 * np.sign(flights.frame["label"] - 0.5), flights.truth)
    verdict = gate.judge(flights.case(challenger, champion), rule())
    assert failed(verdict) == {"slice:origin=SWF"}
    assert "refused by 1 of" in verdict.summary
    assert "slice:origin=SWF: log_loss is" in verdict.summary


def test_slice_of_few_wild_days_is_not_excused_by_its_wide_interval(flights: Flights) -> None:
    """Doubt counts for at most four margins: beyond them a slice is refused however wide its interval is."""
    flights.frame.loc[flights.frame["time"] == flights.frame["time"].min(), "origin"] = "SWF"
    bad = (flights.frame["origin"] == "SWF").to_numpy()
    assert bad.sum() >= 50
    challenger = np.where(bad, -flights.truth, flights.truth)
    verdict = gate.judge(flights.case(challenger, flights.noisy(2.0)), rule())
    refused = check(verdict, "slice:origin=SWF")
    assert not refused.passed
    assert refused.threshold == pytest.approx(0.02 * (1 + gate.DOUBT_MARGINS))


def test_small_slices_are_not_judged(flights: Flights) -> None:
    """A slice with too few rows is left out, and a column with none says so."""
    flights.frame.loc[:20, "origin"] = "SWF"
    names = {c.name for c in gate.judge(flights.case(flights.truth, flights.noisy(1)), rule()).checks}
    assert "slice:origin=SWF" not in names
    verdict = gate.judge(flights.case(flights.truth, flights.noisy(1)), rule(slice_min_rows=10_000))
    assert check(verdict, "slice:origin").reason == "no value of origin has 10,000 rows: none is judged by itself"


def test_equal_predictions_are_no_improvement(flights: Flights) -> None:
    """The champion again is not better than the champion, nor is it with the noise of another machine."""
    logits = flights.noisy(0.5)
    assert failed(gate.judge(flights.case(logits, logits), rule())) == {"improvement"}
    nearer = logits + 1e-13 * (flights.frame["label"] - 0.5)
    assert failed(gate.judge(flights.case(nearer, logits), rule())) == {"improvement"}


def test_noise_rarely_promotes_and_rarely_blocks_a_slice() -> None:
    """Of 60 pairs of equally good models few are promoted (2.5 % are meant), and few have a refused slice."""
    promoted = blocked = 0
    for seed in range(60):
        flights = Flights(n=900, seed=seed)
        verdict = gate.judge(flights.case(flights.noisy(0.4), flights.noisy(0.4)), rule(), resamples=300)
        promoted += verdict.promoted
        blocked += any(name.startswith("slice:") for name in failed(verdict))
    assert promoted <= 5
    assert blocked <= 4


def test_days_widen_the_interval() -> None:
    """Rows of one day err together: the interval is wider than if each row were a witness of its own."""
    flights = Flights(n=2000, days=10, seed=3)
    moved = flights.draw.normal(0, 1, 10)[(flights.frame["time"].dt.day - 1).to_numpy()]
    by_day = gate.judge(flights.case(flights.truth, flights.truth + moved), rule())
    shuffled = flights.case(flights.truth, flights.truth + moved)
    mixed = flights.frame.assign(time=flights.draw.permutation(flights.frame["time"]))
    by_row = gate.judge(replace(shuffled, holdout=mixed), rule())
    wide, narrow = check(by_day, "improvement").interval, check(by_row, "improvement").interval
    assert wide is not None
    assert narrow is not None
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


# ── each check ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "name", "reason"),
    [
        ({"min_rows": 2000}, "rows_unseen", "1,500 of 1,500 holdout rows over 20 days are compared"),
        ({"floors": {"roc_auc": 0.999}}, "floors:roc_auc", "at least 0.999 is asked"),
        ({"ceilings": {"log_loss": 0.01}}, "ceilings:log_loss", "at most 0.01 is allowed"),
        (
            {"floors": {"roc_auk": 0.5}},
            "floors:roc_auk",
            "could not run: there is no roc_auk of these rows; did you mean 'roc_auc'?",
        ),
        ({"calibration": 0.0001}, "calibration", "0.0001 is allowed"),
        ({"latency_ms": 2}, "latency", "one row takes 3 ms, 2 are allowed"),
        ({"size_mb": 0.5}, "size", "the release takes 1 MB, 0.5 are allowed"),
    ],
)
def test_rule_is_kept(flights: Flights, change: dict[str, Any], name: str, reason: str) -> None:
    """Each limit of params.yaml refuses alone, and says what was found and what was asked."""
    verdict = gate.judge(flights.case(flights.truth, flights.noisy(1.5)), rule(**change))
    assert failed(verdict) == {name}
    assert reason in check(verdict, name).reason


@pytest.mark.parametrize(("age", "noise", "passes"), [(2, 0.0, True), (1, 0.0, False), (2, 1.5, False)])
def test_not_worse(flights: Flights, age: int, noise: float, passes: bool) -> None:
    """`not_worse` asks for an interval within the margin, and for a champion that is old."""
    champion = flights.truth
    case = flights.case(flights.noisy(noise) if noise else champion + 0.01, champion, champion_age=age)
    verdict = gate.judge(case, rule(rule="not_worse", slice_margin=1.0))
    assert check(verdict, "improvement").passed is passes
    assert (
        f"the champion is {age} partition{'s' if age > 1 else ''} old, 2 are asked"
        in check(verdict, "improvement").reason
    )


def test_rows_that_either_was_trained_on_are_left_out(flights: Flights) -> None:
    """They are dropped from the comparison, and counted."""
    case = flights.case(flights.truth, flights.noisy(1.5))
    hashes = rows.row_hashes(flights.frame["id"])
    assert case.champion is not None
    case = replace(
        case,
        challenger=replace(case.challenger, trained_on=np.sort(hashes[:100])),
        champion=replace(case.champion, trained_on=np.sort(hashes[50:300])),
    )
    verdict = gate.judge(case, rule())
    assert verdict.holdout["compared"] == 1200
    assert "300 that either was trained on are left out" in check(verdict, "rows_unseen").reason
    everything = replace(case, challenger=replace(case.challenger, trained_on=np.sort(hashes)))
    refused = gate.judge(everything, rule())
    assert {"rows_unseen", "floors:roc_auc", "beats_baseline", "improvement", "slice:origin", "calibration"} <= failed(
        refused
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"wind": {"type": "number"}}, "wind is new and required"),
        ({"hour": {**FEATURES["hour"], "max": 22}}, "hour: max was 23, is 22"),
        ({"temp": {**FEATURES["temp"], "min": -40}}, "temp: min was -80, is -40"),
        ({"temp": {**FEATURES["temp"], "nullable": False}}, "temp may no longer be missing"),
        ({"hour": {**FEATURES["hour"], "type": "category"}}, "hour was integer, is category"),
        ({"origin": None}, "origin is gone: a request with it would be refused"),
        ({"wind": {"type": "number", "nullable": True}}, ""),
        ({"hour": {**FEATURES["hour"], "max": 24}}, ""),
        ({"hour": {"type": "integer", "min": None, "max": None}}, ""),
    ],
)
def test_request_schema(flights: Flights, change: dict[str, Any], reason: str) -> None:
    """A request that the champion accepts must be accepted; the field that is not is named."""
    features = {k: v for k, v in {**FEATURES, **change}.items() if v is not None}
    case = flights.case(flights.truth, flights.noisy(1.5))
    verdict = gate.judge(replace(case, challenger=replace(case.challenger, features=features)), rule())
    assert failed(verdict) == ({"schema"} if reason else set())
    assert reason in check(verdict, "schema").reason


# ── closed when it cannot tell ────────────────────────────────────────────────────────────────────


def broken(flights: Flights, how: str) -> gate.Comparison:
    """A comparison with something wrong in it."""
    case = flights.case(flights.truth, flights.noisy(1.5))
    assert case.champion is not None
    assert case.challenger.predictions is not None
    nan = case.challenger.predictions.copy()
    nan.loc[3, "p_1"] = np.nan
    frame = flights.frame
    return {
        "nan prediction": replace(case, challenger=replace(case.challenger, predictions=nan)),
        "nan of the champion": replace(case, champion=replace(case.champion, predictions=nan)),
        "missing class column": replace(
            case, challenger=replace(case.challenger, predictions=nan[["p_0"]].fillna(0.5))
        ),
        "too few predictions": replace(case, challenger=replace(case.challenger, predictions=nan.iloc[5:])),
        "text for a number": replace(
            case, challenger=replace(case.challenger, predictions=nan.astype(object).fillna("x"))
        ),
        "no champion scores": replace(
            case, champion=replace(case.champion, predictions=None, fault="column temp is gone")
        ),
        "empty holdout": replace(case, holdout=frame.iloc[:0], baseline=case.baseline.iloc[:0]),
        "no label column": replace(case, holdout=frame.drop(columns="label")),
        "no id column": replace(case, holdout=frame.drop(columns="id")),
        "no time column": replace(case, holdout=frame.drop(columns="time")),
        "no slice column": replace(case, holdout=frame.drop(columns="origin")),
        "missing label": replace(case, holdout=frame.assign(label=frame["label"].astype(float).mask(frame.index == 5))),
        "missing time": replace(case, holdout=frame.assign(time=frame["time"].mask(frame.index == 5))),
        "one id twice": replace(case, holdout=frame.assign(id=["same", "same", *frame["id"][2:]])),
        "one day": replace(case, holdout=frame.assign(time=frame["time"].min())),
        "latency not measured": replace(case, latency_ms=None),
        "size is nan": replace(case, size_mb=float("nan")),
        "trained on unknown rows": replace(case, challenger=replace(case.challenger, trained_on=None)),
        "no request schema": replace(case, challenger=replace(case.challenger, features=None)),
        "schema without types": replace(case, challenger=replace(case.challenger, features={k: {} for k in FEATURES})),
        "no baseline": replace(case, baseline=case.baseline[[]]),
    }[how]


@pytest.mark.parametrize(
    ("how", "name", "reason"),
    [
        ("nan prediction", "improvement", "1 of 1500 predictions of the challenger are NaN or infinite"),
        ("nan of the champion", "improvement", "1 of 1500 predictions of the champion are NaN or infinite"),
        ("missing class column", "floors:roc_auc", "the challenger has no p_1"),
        ("too few predictions", "calibration", "the challenger has 1495 predictions for 1500 rows"),
        ("text for a number", "beats_baseline", "could not convert string"),
        ("no champion scores", "slice:origin=JFK", "the champion has no predictions: column temp is gone"),
        ("empty holdout", "beats_baseline", "there is no holdout row that neither was trained on"),
        ("no label column", "calibration", "label is missing"),
        ("no id column", "rows_unseen", "id is missing"),
        ("no time column", "improvement", "time is missing"),
        ("no slice column", "slice:origin", "the holdout has no column origin"),
        ("missing label", "floors:roc_auc", "1 of 1500 holdout rows have no label"),
        ("missing time", "improvement", "1 of 1500 holdout rows have no time"),
        ("one id twice", "rows_unseen", "1 of 1500 row ids stand twice in the holdout"),
        ("one day", "improvement", "an interval over days needs 5 of them, the holdout has 1: hold out more"),
        ("latency not measured", "latency", "it was not measured"),
        ("size is nan", "size", "the value is nan"),
        ("trained on unknown rows", "rows_unseen", "what the challenger was trained on is not known"),
        ("no request schema", "schema", "the request schema of the challenger is not known"),
        ("schema without types", "schema", "type is missing"),
        ("no baseline", "beats_baseline", "the baseline has no p_0, p_1"),
    ],
)
def test_check_that_cannot_run_is_a_no(flights: Flights, how: str, name: str, reason: str) -> None:
    """Whatever is wrong with the data, there is a verdict: a refusal that says what could not be checked."""
    verdict = gate.judge(broken(flights, how), rule())
    assert not verdict.promoted
    assert name in failed(verdict)
    assert check(verdict, name).reason.startswith("could not run: ")
    assert reason in check(verdict, name).reason
    json.loads(verdict.to_json())
    assert verdict.to_text()
    assert verdict_chart.picture(verdict).startswith(b"<svg")


def test_class_that_only_the_champion_does_not_know_is_no_obstacle() -> None:
    """A champion that never saw a class gave it the probability 0: a challenger that knows it can take its place."""
    flights = Flights()
    case = flights.case(flights.truth, flights.truth)
    flights.frame["label"] = flights.frame["label"].where(flights.frame.index % 3 > 0, 2)
    right = pd.get_dummies(flights.frame["label"]).astype(float) * 0.7 + 0.1
    three = right.set_axis(["p_0", "p_1", "p_2"], axis=1)
    case = replace(case, challenger=replace(case.challenger, predictions=three), baseline=three * 0 + 1 / 3)
    verdict = gate.judge(case, rule(ceilings={}, calibration=0.5))
    assert verdict.promoted, verdict.to_text()


def test_champion_of_other_classes_is_not_beaten_by_their_names() -> None:
    """Labels that were 0 and 1 are now truth values: it would have given each of them the probability 0."""
    flights = Flights()
    flights.frame["label"] = flights.frame["label"].astype(bool)
    case = flights.case(flights.truth, flights.truth)
    named = {"p_0": "p_False", "p_1": "p_True"}
    challenger = replace(case.challenger, predictions=scored(flights.truth).rename(columns=named))
    verdict = gate.judge(replace(case, challenger=challenger, baseline=case.baseline.rename(columns=named)), rule())
    assert not verdict.promoted
    assert check(verdict, "improvement").reason == (
        "could not run: the champion knows none of the classes of the holdout: p_0, p_1 and p_False, p_True"
    )


def test_what_the_champion_learned_is_left_out_however_it_was_found(flights: Flights) -> None:
    """By content or partition, where its ids are of another scheme; how is said, and is of the verdict's identity."""
    case = flights.case(flights.truth, flights.noisy(1.5))
    assert case.champion is not None
    seen = np.arange(flights.n) < 300
    found = replace(case, champion=replace(case.champion, overlap=TrainingOverlap(seen, "300 by their content")))
    verdict = gate.judge(found, rule())
    assert verdict.holdout["compared"] == 1200
    assert check(verdict, "rows_unseen").reason.endswith(
        "; 300 that either was trained on are left out (300 by their content)"
    )
    assert verdict.id != gate.judge(case, rule()).id


def test_a_feature_that_began_late_is_told(flights: Flights) -> None:
    """It is no reason to refuse; where there is none, nothing is said."""
    case = flights.case(flights.truth, flights.noisy(1.5))
    assert "columns" not in {each.name for each in gate.judge(case, rule()).checks}
    verdict = gate.judge(replace(case, without={"age": ["2013-01", "2013-02"]}), rule())
    assert verdict.promoted
    assert check(verdict, "columns").reason == "age is missing throughout in 2013-01, 2013-02"


def test_doubt_about_what_the_champion_learned_refuses(flights: Flights) -> None:
    """The verdict says that it could not be checked; the other checks are run all the same."""
    case = flights.case(flights.truth, flights.noisy(1.5))
    assert case.champion is not None
    seen = np.zeros(flights.n, dtype=bool)
    verdict = gate.judge(
        replace(case, champion=replace(case.champion, overlap=TrainingOverlap(seen, doubt="it was long ago"))), rule()
    )
    assert failed(verdict) == {"rows_unseen"}
    assert check(verdict, "rows_unseen").reason == "it was long ago"


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=0, max_size=40),
    labels=st.lists(st.sampled_from([0, 1, 7, None]), min_size=0, max_size=40),
    latency=st.one_of(st.none(), st.floats()),
)
def test_nothing_in_the_data_makes_it_raise(values: list[float], labels: list[Any], latency: float | None) -> None:
    """Any predictions, any labels, any length: a refusal, never an exception."""
    n = len(labels)
    frame = pd.DataFrame({"id": [str(i) for i in range(n)], "label": labels, "origin": ["a"] * n})
    frame["time"] = pd.date_range("2013-01-01", periods=n, freq="8h")
    side = gate.Contender("c" * 16, pd.DataFrame({"p_0": values, "p_1": values}), NOBODY, FEATURES)
    case = Flights(n=60).case([0.0] * 60, [0.0] * 60)
    verdict = gate.judge(replace(case, holdout=frame, challenger=side, latency_ms=latency), rule(), resamples=100)
    assert not verdict.promoted
    assert Verdict.from_json(verdict.to_json()) == verdict


# ── the record ────────────────────────────────────────────────────────────────────────────────────


def test_same_pair_same_holdout_same_bytes(flights: Flights) -> None:
    """The document, the table, the text and the picture are the same byte for byte."""
    case = flights.case(flights.noisy(0.1), flights.noisy(1.0))
    again = replace(case, holdout=case.holdout.copy(), baseline=case.baseline.copy())
    one, two = gate.judge(case, rule()), gate.judge(again, rule())
    assert one.to_json() == two.to_json()
    assert one.to_markdown() == two.to_markdown()
    assert verdict_chart.picture(one) == verdict_chart.picture(two)
    assert Verdict.from_json(one.to_json()) == one


@pytest.mark.parametrize("what", ["rule", "holdout", "champion", "latency", "age", "resamples"])
def test_identity_changes_with_what_it_was_made_from(flights: Flights, what: str) -> None:
    """Another rule, other rows, another champion or other facts make another verdict."""
    case = flights.case(flights.truth, flights.noisy(1))
    assert case.champion is not None
    first = gate.verdict_id(case, rule(), 1000)
    other = {
        "rule": (case, rule(margin=0.5), 1000),
        "holdout": (replace(case, holdout=case.holdout.assign(label=1)), rule(), 1000),
        "champion": (replace(case, champion=replace(case.champion, candidate="b" * 16)), rule(), 1000),
        "latency": (replace(case, latency_ms=4.0), rule(), 1000),
        "age": (replace(case, champion_age=9), rule(), 1000),
        "resamples": (case, rule(), 999),
    }[what]
    assert gate.verdict_id(*other) != first
    assert gate.verdict_id(case, rule(), 1000) == first


def test_record_says_what_it_rests_on(flights: Flights) -> None:
    """Rows, days, interval and resamples stand in the document and in the texts."""
    verdict = gate.judge(flights.case(flights.truth, flights.noisy(1.5)), rule(), resamples=500)
    said = json.loads(verdict.to_json())
    assert said["holdout"]["rows"] == said["holdout"]["compared"] == 1500
    assert said["holdout"]["days"] == 20
    assert said["resamples"] == 500
    for text in (verdict.to_text(), verdict.to_markdown()):
        assert "1,500 of 1,500 holdout rows over 20 days (2013-08-01 to 2013-08-20)" in text
        assert "95% intervals from 500 resamples of whole days" in text


def test_what_failed_comes_first(flights: Flights) -> None:
    """In the table and in the text, and in the summary."""
    verdict = gate.judge(flights.case(flights.truth, flights.noisy(1.5)), rule(size_mb=0.1))
    table = [line for line in verdict.to_markdown().splitlines() if line.startswith(("| ✓", "| ✗"))]
    assert table[0].startswith("| ✗ | `size` |")
    assert verdict.to_text().splitlines()[2].strip().startswith("✗ size")
    assert "refused by 1 of 12 checks: size: the release takes 1 MB, 0.1 are allowed" in verdict.summary


def test_half_a_record_is_none(flights: Flights) -> None:
    """A document that was cut off, or is another one, is not a verdict."""
    text = gate.judge(flights.case(flights.truth), rule()).to_json()
    for wrong in (text[:-40], "{}", '{"checks": []}'):
        with pytest.raises(ValueError):
            Verdict.from_json(wrong)


def test_regression_is_judged_alike() -> None:
    """A regression challenger is compared by its own losses, with rows drawn at random in groups when days are few."""
    draw = np.random.default_rng(5)
    n = 400
    frame = pd.DataFrame({"id": [str(i) for i in range(n)], "time": pd.Timestamp("2013-01-01"), "origin": "EWR"})
    mean = draw.gamma(5, 4, n)
    frame["label"] = draw.poisson(mean).astype(float)
    case = Flights().case([0.0], [0.0])
    assert case.champion is not None
    close, off = pd.DataFrame({"prediction": mean}), pd.DataFrame({"prediction": mean * np.exp(draw.normal(0, 0.4, n))})
    case = replace(
        case,
        task="regression",
        holdout=frame,
        split="random",
        baseline=pd.DataFrame({"prediction": np.full(n, frame["label"].mean())}),
        challenger=replace(case.challenger, predictions=close),
        champion=replace(case.champion, predictions=off),
    )
    verdict = gate.judge(case, rule(loss="poisson", floors={}, ceilings={"mae": 10.0}, slice_margin=0.5))
    assert verdict.promoted, verdict.to_text()
    assert verdict.holdout["blocks"] == "group of rows"


def test_small_losses_are_judged_alike(flights: Flights) -> None:
    """A target of some ten-thousandths has a squared loss of some 1e-8, which is none of 0."""
    case = flights.case([0.0], [0.0])
    assert case.champion is not None
    answers = [pd.DataFrame({"prediction": 1e-4 * flights.noisy(noise)}) for noise in (0.5, 1.0)]
    case = replace(
        case,
        task="regression",
        holdout=flights.frame.assign(label=1e-4 * flights.truth),
        baseline=pd.DataFrame({"prediction": np.zeros(flights.n)}),
        challenger=replace(case.challenger, predictions=answers[0]),
        champion=replace(case.champion, predictions=answers[1]),
    )
    verdict = gate.judge(case, rule(loss="squared", floors={}, ceilings={"rmse": 6e-5}))
    assert verdict.promoted, verdict.to_text()
    assert check(verdict, "improvement").value == pytest.approx(-0.75e-8, rel=0.1)


# ── what a rollout is to expect ───────────────────────────────────────────────────────────────────


def test_a_verdict_says_how_far_answers_move(flights: Flights) -> None:
    """On the compared rows, on average and at most; it is read back, and a verdict of before has none."""
    champion, challenger = flights.noisy(1.0), flights.noisy(0.1)
    verdict = gate.judge(flights.case(challenger, champion), rule())
    difference = np.abs(scored(challenger)["p_1"] - scored(champion)["p_1"])
    assert verdict.moves is not None
    assert verdict.moves.rows == 1500
    assert verdict.moves.mean == pytest.approx(difference.mean())
    assert verdict.moves.most == pytest.approx(difference.max())
    assert f"answers move by {difference.mean():.4g} on average and by {difference.max():.4g} at most" in str(
        verdict.moves
    )
    assert str(verdict.moves) in verdict.to_text()
    assert str(verdict.moves) in verdict.to_markdown()
    assert Verdict.from_json(verdict.to_json()) == verdict
    older = {name: value for name, value in json.loads(verdict.to_json()).items() if name != "moves"}
    assert Verdict.from_json(json.dumps(older)).moves is None
    assert gate.judge(flights.case(challenger), rule()).moves is None


def test_how_far_answers_move_when_a_source_fails_is_known_before_the_rollout(flights: Flights) -> None:
    """The most that a row moves is that of the rows as they are, or as they are when all is missing that may be."""
    case = flights.case(flights.noisy(0.1), flights.noisy(1.0))
    assert case.champion
    known = gate.judge(case, rule()).moves
    assert known
    champion = replace(case.champion, when_missing=pd.DataFrame({"p_0": [1.0], "p_1": [0.0]}))
    challenger = replace(case.challenger, when_missing=pd.DataFrame({"p_0": [0.05], "p_1": [0.95]}))
    moves = gate.judge(replace(case, champion=champion, challenger=challenger), rule()).moves
    assert moves == replace(known, most=0.95)


def test_every_feature_is_missing_that_may_be() -> None:
    """The others, and the types, are as they were."""
    rows = pd.DataFrame({"temp": [1.0, 2.0], "hour": [1, 2], "origin": pd.Categorical(["a", None])})
    types = {"temp": "number", "hour": "integer", "origin": "category"}
    optional = {name: {"type": type_, "nullable": name != "hour"} for name, type_ in types.items()}
    without = comparison.without_optional(rows, optional)
    assert without.dtypes.equals(rows.dtypes)
    assert without.isna().all().tolist() == [True, False, True]


def test_answers_lie_apart_by_probability_or_by_value() -> None:
    """A class that one of them does not know has the probability 0 there."""
    before = pd.DataFrame({"p_a": [0.6, 1.0], "p_b": [0.4, 0.0]})
    after = pd.DataFrame({"p_b": [0.7, 0.0], "p_a": [0.2, 1.0], "p_c": [0.1, 0.0]})
    assert gate.distances("classification", before, after).tolist() == pytest.approx([0.4, 0.0])
    values = pd.DataFrame({"prediction": [3.0, -2.0]})
    assert gate.distances("regression", values, -values).tolist() == [6.0, 4.0]


def test_rows_without_a_time_are_compared_in_groups(flights: Flights) -> None:
    """The record says so, and names no day; split by time they cannot be compared."""
    undated = flights.frame.assign(time=pd.Series(pd.NaT, index=range(0), dtype="datetime64[us]"))
    case = flights.case(flights.noisy(0), flights.noisy(2), holdout=undated, split="random")
    verdict = gate.judge(case, rule())
    assert verdict.promoted, verdict.summary
    assert verdict.holdout["blocks"] == "group of rows"
    assert verdict.holdout["days"] == 0
    assert "1,500 of 1,500 holdout rows; 95% intervals" in verdict.basis()
    assert check(verdict, "rows_unseen").reason == "1,500 of 1,500 holdout rows, without a time, are compared"
    by_time = gate.judge(replace(case, split="time"), rule())
    assert check(by_time, "improvement").reason == "could not run: 1500 of 1500 holdout rows have no time"


# ── decisions, costs, weights, fairness ───────────────────────────────────────────────────────────


def deciding(logit: Any, threshold: float) -> pd.DataFrame:
    """Predictions with the class that is decided for from a probability on."""
    answers = scored(logit)
    return answers.assign(prediction=(answers["p_1"] >= threshold).astype("int64"))


def test_a_cost_is_compared_row_by_row(flights: Flights) -> None:
    """The same probabilities, another threshold: the cheaper decisions win, and a log loss sees no difference."""
    case = flights.case(flights.truth, flights.truth, cost="cost(1, 10)")
    cheap, dear = deciding(flights.truth, 1 / 11), deciding(flights.truth, 0.5)
    cheaper = replace(
        case,
        challenger=replace(case.challenger, predictions=cheap),
        champion=replace(case.champion, predictions=dear),
        baseline=case.baseline.assign(prediction=1),
    )
    by_cost = check(gate.judge(cheaper, rule(loss="cost"), resamples=200), "improvement")
    assert by_cost.passed
    assert by_cost.reason.startswith("cost(1, 10) is ")
    expected = gate.metrics.losses("cost(1, 10)", flights.frame["label"], cheap)
    expected = expected - gate.metrics.losses("cost(1, 10)", flights.frame["label"], dear)
    assert by_cost.value == pytest.approx(expected.mean())
    assert not check(gate.judge(cheaper, rule(), resamples=200), "improvement").passed
    without = check(gate.judge(replace(cheaper, cost=None), rule(loss="cost"), resamples=200), "improvement")
    assert without.reason == "could not run: what errors cost is not known (params.yaml: estimator.decision.cost)"


def test_floors_and_ceilings_may_be_of_decisions(flights: Flights) -> None:
    """As the pipeline decides, not as the most probable class would."""
    case = flights.case(flights.truth, cost="cost(1, 10)", decision="from 0.1 on")
    case = replace(case, challenger=replace(case.challenger, predictions=deciding(flights.truth, 0.1)))
    limits = rule(floors={"recall": 0.95, "precision": 0.9}, ceilings={"cost": 1.0})
    verdict = gate.judge(case, limits, resamples=200)
    assert check(verdict, "floors:recall").passed
    assert not check(verdict, "floors:precision").passed
    assert check(verdict, "ceilings:cost").passed
    assert check(verdict, "decision").reason == "from 0.1 on"


def test_a_row_that_weighs_nothing_decides_nothing(flights: Flights) -> None:
    """Metrics, losses and their intervals count rows as often as their weight says."""
    worse = np.where(flights.frame["origin"] == "EWR", -flights.truth, flights.truth)
    case = flights.case(worse, flights.noisy(0.8))
    ours = flights.frame.assign(weight=(flights.frame["origin"] != "EWR").astype(float))
    weighted, plain = (
        gate.judge(replace(case, holdout=frame, slices=()), rule(), resamples=200) for frame in (ours, flights.frame)
    )
    assert check(weighted, "improvement").passed
    assert not check(plain, "improvement").passed
    assert weighted.id != plain.id


def test_rows_that_all_weigh_nothing_are_told(flights: Flights) -> None:
    """As may be, once those that either has learned from are left out; not in NumPy's words."""
    case = flights.case(flights.truth, flights.noisy(0.8))
    verdict = gate.judge(replace(case, holdout=flights.frame.assign(weight=0.0)), rule(), resamples=50)
    assert not verdict.promoted
    for name in ("improvement", "beats_baseline"):
        assert check(verdict, name).reason == (
            f"could not run: the weight of each of the {flights.n:,} rows that are compared is 0: none counts"
        )


def unfair(flights: Flights, shift: float) -> gate.Comparison:
    """Decisions that are easier to get in one of three groups, which the model does not know."""
    group = np.random.default_rng(5).choice(["a", "b", "few"], flights.n, p=[0.5, 0.48, 0.02])
    answers = deciding(flights.truth + shift * (group == "a"), 0.5)
    case = flights.case(flights.truth, holdout=flights.frame.assign(group=group), slices=("origin", "group"))
    return replace(case, challenger=replace(case.challenger, predictions=answers))


def test_a_gap_between_groups_is_refused_beyond_doubt(flights: Flights) -> None:
    """With the groups' own values; one with few rows is not judged, and that is said."""
    asked = rule(fairness=[{"column": "group", "metric": "selection_rate", "at_most": 0.05}])
    name = "fairness:group:selection_rate"
    far = check(gate.judge(unfair(flights, 2.0), asked, resamples=300), name)
    assert not far.passed
    assert far.value is not None
    assert far.interval is not None
    assert far.interval[0] > 0.05
    assert "(a 0." in far.reason
    assert far.reason.endswith("not judged, as it has fewer than 50 rows: few")
    assert check(gate.judge(unfair(flights, 0.0), asked, resamples=300), name).passed


def test_a_slice_or_group_that_weighs_nothing_is_not_judged(flights: Flights) -> None:
    """It has no mean: neither in words of a library, nor as a gap that is no number."""
    asked = rule(fairness=[{"column": "group", "metric": "accuracy", "at_most": 0.5}])
    case = unfair(flights, 0.0)
    weights = (case.holdout["group"] != "b").astype(float)
    case = replace(case, holdout=case.holdout.assign(weight=weights))
    case = replace(case, champion=replace(case.challenger, candidate="old"))
    verdict = gate.judge(case, asked, resamples=100)
    assert "slice:group=b" not in {each.name for each in verdict.checks}
    assert check(verdict, "slice:group=a").passed
    gap = check(verdict, "fairness:group:accuracy")
    assert (gap.passed, gap.value) == (True, None)
    assert gap.reason.endswith("has fewer than 50 rows: b, few")


def test_a_rule_has_the_name_that_it_had_before_there_was_more_to_name() -> None:
    """As commit 4b9ef1d named it; what it names of that is a part of its name."""
    assert gate.rule_digest(rule()) == "c214436a6d8fac95"
    later = [rule(agreement=0.9), rule(coverage=[0.75, 0.85])]
    later += [rule(fairness=[{"column": "origin", "metric": "loss", "at_most": 0.1}])]
    assert len({gate.rule_digest(each) for each in [rule(), *later]}) == 4


@pytest.mark.parametrize("metric", ["recall", "precision", "false_positive_rate", "accuracy", "loss"])
def test_noise_between_groups_is_no_reason_to_refuse(metric: str) -> None:
    """Two groups that are treated alike, and nothing allowed: at most one in twenty is refused, as was asked."""
    asked = rule(fairness=[{"column": "group", "metric": metric, "at_most": 0.0}])
    holdouts = (gate._Holdout(unfair(Flights(n=600, seed=seed), 0.0), asked, 100) for seed in range(40))
    refused = [not holdout.fairness_gap(asked.fairness[0]).passed for holdout in holdouts]
    assert sum(refused) <= 5


def test_fairness_of_a_column_without_large_groups_is_said(flights: Flights) -> None:
    """It passes: there is nothing to compare."""
    asked = rule(slice_min_rows=5000, fairness=[{"column": "group", "metric": "recall", "at_most": 0.0}])
    result = check(gate.judge(unfair(flights, 2.0), asked, resamples=100), "fairness:group:recall")
    assert (result.passed, result.value) == (True, None)
    assert result.reason.startswith("no two groups of group can be compared in recall; not judged")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ({"type": "text"}, {"type": "text", "max_length": 100}, "max_length was 20000, is 100"),
        ({"type": "text", "max_length": 100}, {"type": "text"}, ""),
        ({"type": "vector", "length": 3}, {"type": "vector", "length": 4}, "length was 3, is 4"),
        (
            {"type": "datetime", "min": "2020-01-01T00:00:00"},
            {"type": "datetime", "min": "2021-01-01 00:00:00"},
            "min was",
        ),
        ({"type": "datetime", "min": "2020-01-01 00:00:00"}, {"type": "datetime", "min": "2020-01-01T00:00:00"}, ""),
        ({"type": "boolean"}, {"type": "category"}, "was boolean, is category"),
    ],
)
def test_a_request_that_another_type_would_refuse_is_told(
    old: dict[str, Any], new: dict[str, Any], reason: str
) -> None:
    """A shorter text, a vector of another length, a later earliest time."""
    reasons = gate.refused_requests({"x": {"nullable": False, **old}}, {"x": {"nullable": False, **new}})
    assert reason in "; ".join(reasons)
    assert bool(reasons) == bool(reason)


# ── several labels ────────────────────────────────────────────────────────────────────────────────


def two_labels(flights: Flights, other: Any, worse: Any) -> gate.Comparison:
    """A challenger that is better in `late`, and in `long` as it is asked."""
    late, champion = scored(flights.noisy(0)), scored(flights.noisy(2.5))
    label = flights.frame["label"]
    holdout = flights.frame.drop(columns="label").assign(**{"late:label": label, "long:label": label})

    def both(of_late: Any, of_long: Any) -> Any:
        return of_late.add_prefix("late:").join(of_long.add_prefix("long:"))

    share = flights.frame["label"].mean()
    constant = scored(np.full(flights.n, np.log(share / (1 - share))))
    case = flights.case(flights.noisy(0), flights.noisy(2.5))
    return replace(
        case,
        holdout=holdout,
        challenger=replace(case.challenger, predictions=both(late, scored(worse))),
        champion=replace(case.champion, predictions=both(champion, scored(other))),
        baseline=both(constant, constant),
    )


def test_of_several_labels_the_mean_decides_and_none_may_be_much_worse(flights: Flights) -> None:
    """The gain of one label does not pay for the loss of another."""
    good = gate.judge(two_labels(flights, flights.noisy(0.5), flights.noisy(0.4)), rule(slice_margin=0.02))
    assert good.promoted, good.to_text()
    bad = gate.judge(two_labels(flights, flights.noisy(0), flights.noisy(1.2)), rule(slice_margin=0.02))
    assert check(bad, "improvement").passed
    assert check(bad, "output:late").passed
    assert "output:long" in failed(bad)
    assert bad.moves is not None


def test_a_champion_of_other_labels_is_told(flights: Flights) -> None:
    """It knows none of the classes of a label."""
    case = two_labels(flights, flights.noisy(0), flights.noisy(0))
    assert case.champion is not None
    alone = replace(case.champion, predictions=scored(flights.noisy(1)))
    verdict = gate.judge(replace(case, champion=alone), rule())
    assert "the champion knows none of the classes" in check(verdict, "improvement").reason


# ── anomalies ─────────────────────────────────────────────────────────────────────────────────────


def test_alerts_of_an_anomaly_model_may_not_differ_too_much_between_groups(flights: Flights) -> None:
    """Nobody's labels are needed for that: the share of rows that raise an alert is compared."""
    group = np.where(np.arange(flights.n) % 2, "young", "old")
    rates = {"even": np.full(flights.n, 0.05), "uneven": np.where(group == "old", 0.1, 0.01)}
    asked = rule(fairness=[{"column": "group", "metric": "selection_rate", "at_most": 0.02}], loss="average_precision")
    told = {}
    for name, rate in rates.items():
        alerts = (np.random.default_rng(1).random(flights.n) < rate).astype(float)
        answers = pd.DataFrame({"prediction": alerts, "anomaly_score": alerts - 0.5})
        case = replace(
            flights.case(flights.noisy(0)),
            task="anomaly",
            holdout=flights.frame.assign(label=np.nan, group=group),
            slices=("group",),
            challenger=gate.Contender("c" * 16, answers, NOBODY, FEATURES),
            baseline=answers.assign(anomaly_score=0.0),
        )
        verdict = gate.judge(case, asked)
        assert "– beats_baseline" in verdict.to_text(), "without labels it is neither passed nor failed"
        told[name] = check(verdict, "fairness:group:selection_rate")
    assert told["even"].passed, told["even"].reason
    assert not told["uneven"].passed
    assert told["uneven"].reason.startswith("selection_rate differs by 0.0")
