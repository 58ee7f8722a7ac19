"""The retrain policy: what each condition asks, how they combine, what comes before them, and what is recorded."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.ground import params
from tasks.ground.params import Retrain, When
from tasks.monitoring import retrain_policy
from tasks.monitoring.retrain_policy import MeanLoss, OpenAlarm, PolicyState, decide

NOW = datetime(2013, 6, 3)


def quality(loss: float, half: float, labels: int = 1000) -> MeanLoss:
    """A loss with an interval of so much to each side."""
    return MeanLoss(loss, loss - half, loss + half, labels, NOW - timedelta(days=28), NOW)


USUAL = PolicyState(
    model="late",
    now=NOW,
    data_version="new",
    trained_at=NOW - timedelta(days=20),
    trained_on="old",
    learned_until=NOW - timedelta(days=48),
    learned_rows=100_000,
    newer_rows=20_000,
    revised_rows=1_000,
    newer_partitions=2,
    new_rows=5_000,
    new_partitions=1,
    alarms=(OpenAlarm("k1", "temp, dewp", 0.3, date(2013, 5, 20)), OpenAlarm("k2", "carrier", 0.1, date(2013, 5, 25))),
    promised=quality(0.50, 0.01),
    measured=quality(0.56, 0.01),
    estimated=quality(0.52, 0.01, labels=0),
)
"""Trained 20 days ago; much has moved since."""


def on(*lines: dict[str, Any], gap: float = 0) -> Retrain:
    """A policy of these lines."""
    return Retrain(gap_days=gap, when=[When(**line) for line in lines])


@pytest.mark.parametrize(
    ("condition", "holds", "words"),
    [
        ({"new_rows": 5_000}, True, "5,000 new rows, 5,000 are asked"),
        ({"new_rows": 5_001}, False, "5,000 new rows, 5,001 are asked"),
        ({"new_partitions": 1}, True, "1 new partition, 1 are asked"),
        ({"new_partitions": 2}, False, "1 new partition, 2 are asked"),
        ({"growth": 0.2}, True, "20,000 rows came since the champion was trained, 20% of the 100,000 it learned from"),
        ({"growth": 0.21}, False, "21% are asked"),
        ({"new_share": 0.05}, True, "5,000 rows came since the last training, 5% of what the champion learned from"),
        ({"new_share": 0.06}, False, "6% are asked"),
        ({"revised": 0.01}, True, "1,000 rows were revised since, 1.0% of the 100,000 that the champion learned from"),
        ({"revised": 0.02}, False, "2.0% are asked"),
        ({"months": 1}, True, "1 calendar month began since the last training"),
        ({"months": 2}, False, "2 are asked"),
        ({"age_days": 48}, True, "the champion learned from rows until 2013-04-16, 48 days ago; 48 are asked"),
        ({"age_days": 49}, False, "49 are asked"),
        ({"age_partitions": 2}, True, "2 partitions are newer than what the champion learned from"),
        ({"age_partitions": 3}, False, "3 are asked"),
        ({"drift": 0.3}, True, "drift in temp, dewp since 2013-05-20, effect 0.3 (and 1 more alarm)"),
        ({"drift": 0.31}, False, "0.31 is asked"),
        ({"measured_loss": 0.09}, True, "0.56, 12.0% above the promised 0.5, 9.0% are allowed: beyond doubt"),
        ({"measured_loss": 0.11}, False, "11.0% are allowed: not beyond doubt"),
        ({"measured_loss": 0.13}, False, "13.0% are allowed: within what is allowed"),
        ({"estimated_loss": 0.01}, True, "the estimated loss is 0.52, 4.0% above the promised 0.5"),
        ({"estimated_loss": 0.02}, False, "not beyond doubt"),
    ],
)
def test_a_condition_holds_from_its_limit_on(condition: dict[str, float], holds: bool, words: str) -> None:
    """Each condition by itself, just within and just beyond, with its reason in words."""
    decision = decide(USUAL, on(condition))
    assert decision.retrain is holds
    (reason,) = decision.reasons[0]
    assert (reason.name, reason.holds, reason.limit) == (*condition, holds, *condition.values())
    assert words in reason.words
    assert words in decision.why


def test_every_condition_of_params_is_asked() -> None:
    """What params.yaml takes, the policy knows, and the other way round."""
    asked = {name: decide(USUAL, on({name: 1})).reasons[0][0].name for name in When.model_fields}
    assert asked == {name: name for name in When.model_fields}


def test_one_line_is_enough_and_all_that_stands_in_it_must_hold() -> None:
    """Lines are alternatives; conditions of a line belong together."""
    yes, no = {"new_rows": 1}, {"age_partitions": 9}
    assert decide(USUAL, on(no, yes)).retrain
    assert not decide(USUAL, on({**yes, **no})).retrain
    assert decide(USUAL, on({**yes, "growth": 0.1})).retrain
    both = decide(USUAL, on({**yes, **no}, no))
    assert both.why.count("9 are asked") == 2
    assert "new rows" not in both.why, "what holds keeps nobody from training"


def test_a_policy_without_lines_never_trains_by_itself() -> None:
    """And says so."""
    decision = decide(USUAL, on())
    assert not decision.retrain
    assert decision.why == "no: the policy never retrains by itself"


def test_the_gap_is_kept_and_what_it_holds_back_is_told() -> None:
    """Whatever holds; from the day on which the gap is over, it no longer does."""
    early = decide(USUAL, on({"new_rows": 1}, gap=21))
    assert not early.retrain
    assert "the last training was 20 days ago, the gap is 21 days; else it would: 5,000 new rows" in early.why
    assert decide(USUAL, on({"new_rows": 1}, gap=20)).retrain


def test_a_person_overrides_the_gap_and_the_policy_and_is_recorded() -> None:
    """With the policy's own answer beside it."""
    asked = replace(USUAL, asked_by="Ada", data_version="old")
    against = decide(asked, on(gap=100))
    assert against.retrain
    assert against.why == "Ada asked for it"
    assert against.to_dict()["state"]["asked_by"] == "Ada"
    assert "the policy says yes" in decide(asked, on({"new_rows": 1})).why


def test_without_new_data_there_is_nothing_to_learn() -> None:
    """Age or drift alone would train the same candidate again."""
    decision = decide(replace(USUAL, trained_on="new"), on({"age_days": 1}, {"drift": 0}))
    assert not decision.retrain
    assert "nothing is new" in decision.why


def test_what_was_never_trained_or_was_edited_is_trained() -> None:
    """Without asking the policy; but not without data."""
    assert decide(replace(USUAL, trained_at=None, trained_on=None), on()).why == "nothing was ever trained"
    code = decide(replace(USUAL, edited="models/m/rows is modified"), on())
    assert code.why == "models/m/rows changed since the last training"
    edited = decide(replace(USUAL, edited="params.yaml: estimator.params"), on(gap=100))
    assert edited.retrain
    assert edited.why == "params.yaml: estimator.params changed since the last training"
    assert not decide(PolicyState(model="late", now=NOW, data_version=None), on({"new_rows": 1})).retrain


@pytest.mark.parametrize(
    ("condition", "unknown", "words"),
    [
        ({"measured_loss": 0}, {"measured": None}, "no labels came yet"),
        ({"estimated_loss": 0}, {"estimated": None}, "there is no estimate"),
        ({"measured_loss": 0}, {"promised": None}, "nothing was promised"),
        ({"measured_loss": 0}, {"measured": replace(quality(9, 0), low=-math.inf, high=math.inf)}, "no interval"),
        ({"growth": 0.1}, {"learned_rows": 0}, "there is no champion"),
        ({"new_share": 0.1}, {"learned_rows": 0}, "there is no champion"),
        ({"revised": 0.1}, {"learned_rows": 0}, "there is no champion"),
    ],
)
def test_what_is_not_known_does_not_hold(condition: dict[str, float], unknown: dict[str, Any], words: str) -> None:
    """And is told apart from «no»."""
    decision = decide(replace(USUAL, **unknown), on(condition))
    assert not decision.retrain
    assert decision.reasons[0][0].holds is None
    assert words in decision.why


@pytest.mark.parametrize("condition", [{"age_days": 1}, {"age_partitions": 1}, {"measured_loss": 9}])
def test_where_no_candidate_has_passed_the_gate_new_data_may_make_a_champion(condition: dict[str, float]) -> None:
    """Else a first candidate that is refused would be the last. The gap holds for it as for every training."""
    without = replace(USUAL, learned_until=None, learned_rows=0, promised=None, measured=None, estimated=None)
    decision = decide(without, on(condition, gap=10))
    assert decision.retrain
    assert decision.reasons[0][0].holds is None
    assert not decide(without, on(condition, gap=100)).retrain
    assert not decide(replace(without, trained_on="new"), on(condition)).retrain


def test_no_alarm_is_no_drift() -> None:
    """Even where any effect would do."""
    assert not decide(replace(USUAL, alarms=()), on({"drift": 0})).retrain


def test_a_quality_loss_within_chance_is_seldom_taken_for_one() -> None:
    """Both losses are means of 30 days, the true loss has not changed: intervals of 95% put together err as rarely."""
    draw = np.random.default_rng(0)
    half, taken = 1.96 * 0.1 / math.sqrt(30), 0
    for promised, measured in 0.5 + draw.normal(0, 0.1 / math.sqrt(30), (2000, 2)):
        state = replace(USUAL, promised=quality(promised, half), measured=quality(measured, half))
        taken += decide(state, on({"measured_loss": 0})).retrain
    assert taken / 2000 < 0.035, "one-sided at 2.5%"


def test_small_losses_are_compared_and_told() -> None:
    """A loss of 2.5e-7 has an interval, and is no zero in the record."""
    rng = np.random.default_rng(0)
    times = pd.Series(pd.Timestamp("2013-05-01") + pd.to_timedelta(np.arange(3000) // 100, unit="D"))
    promised, measured = (MeanLoss.of(rng.normal(0, scale, 3000) ** 2, times, 200, 0.95) for scale in (5e-4, 1e-3))
    decision = decide(replace(USUAL, promised=promised, measured=measured), on({"measured_loss": 0.1}))
    assert decision.retrain
    told = json.loads(decision.to_json())["state"]["promised"]["loss"]
    assert told == promised.loss == pytest.approx(2.5e-7, rel=0.1)


def test_a_decision_is_a_record_with_its_inputs_for_no_as_well() -> None:
    """Strict JSON with every fact, the policy, and the reasons; equal facts give equal bytes, and an identity."""
    state = replace(USUAL, measured=replace(quality(0.5, 0), low=-math.inf, high=math.inf))
    no = decide(state, on({"measured_loss": 0.1}, gap=3))
    record = json.loads(no.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert record["retrain"] is False
    assert record["policy"]["gap_days"] == 3
    assert record["state"]["now"] == "2013-06-03T00:00:00"
    assert record["state"]["measured"]["low"] is None
    assert record["state"]["alarms"][0] == {"effect": 0.3, "key": "k1", "since": "2013-05-20", "what": "temp, dewp"}
    assert record["reasons"][0][0]["holds"] is None
    assert no.to_json() == decide(replace(state), on({"measured_loss": 0.1}, gap=3)).to_json()
    assert no.id != decide(replace(state, new_rows=1), on({"measured_loss": 0.1}, gap=3)).id
    assert no.id != decide(state, on({"measured_loss": 0.1}, gap=4)).id


def test_the_policies_that_ship_can_be_asked() -> None:
    """Of both models, with everything known and with nothing known."""
    for model in params.load().models.values():
        for state in (USUAL, PolicyState(model="late", now=NOW, data_version="a", trained_at=NOW, trained_on="b")):
            assert retrain_policy.decide(state, model.retrain).why


def test_rows_without_a_time_have_no_clock() -> None:
    """A gap, an age in days and months cannot be told; partitions, rows and shares can."""
    undated = dict.fromkeys(("now", "trained_at", "learned_until"), retrain_policy.UNDATED)
    state = replace(USUAL, **undated)
    asked = decide(state, on({"age_days": 60}, {"months": 1}, gap=14))
    assert not asked.retrain
    assert asked.why == "no: the rows have no time; the rows have no time"
    assert decide(state, on({"new_partitions": 1}, gap=14)).why == "1 new partition, 1 are asked"
    losses, none = np.arange(100.0), pd.Series([pd.NaT] * 100, dtype="datetime64[us]")
    promised = MeanLoss.of(losses, none, 200, 0.95, may_be_by_row=True)
    assert promised.low < promised.loss < promised.high
    assert promised.since == retrain_policy.UNDATED
    assert not math.isfinite(MeanLoss.of(losses, none, 200, 0.95).high)
