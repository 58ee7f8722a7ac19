"""Is it time to train again? The retrain policy: one pure function from what is known to a decision with reasons.

`decide` reads nothing and asks nobody, so that a flow, the backtest and a test get the same answer from the same
facts. What it answers is a record, «no» as well: every fact it was given, the policy, and for each thing that was asked
what was found, in words. It holds no time but `PolicyState.now`: equal facts give equal bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tasks.ground import files, numbers

if TYPE_CHECKING:
    import pandas as pd

    from tasks.ground import params
    from tasks.modelling.metrics import Floats
    from tasks.monitoring.drift import drift

DAY = timedelta(days=1)

NAMED = 3
"""So many columns of an alarm are named."""

WINDOW_DAYS = 28
"""MeanLoss is measured on the rows of so many days, at most: in production as in a backtest."""


@dataclass(frozen=True)
class MeanLoss:
    """The mean loss of a model on some rows, or an estimate of it, and how sure that is. Lower is better."""

    loss: float
    low: float
    high: float
    """The interval; where there is none (too few days), low is −inf and high +inf."""
    labels: int
    """How many rows with a label it is of; 0 for an estimate."""
    since: datetime
    until: datetime
    """The window: from the first row's time to the last one's."""

    @staticmethod
    def of(losses: Floats, times: pd.Series[Any], resamples: int, confidence: float) -> MeanLoss:
        """From the loss of each row; days are resampled, as rows of one day belong together."""
        from tasks.modelling import metrics

        resampled = metrics.bootstrap_means(losses, metrics.day_blocks(times), resamples, 0)
        low, high = metrics.interval(resampled, confidence)
        known = math.isfinite(low) and math.isfinite(high)
        return MeanLoss(
            loss=numbers.short(losses.mean()),
            low=numbers.short(low) if known else -math.inf,
            high=numbers.short(high) if known else math.inf,
            labels=len(losses),
            since=times.min().to_pydatetime(),
            until=times.max().to_pydatetime(),
        )


@dataclass(frozen=True)
class OpenAlarm:
    """A drift alarm that is open: what moved, by how much, since when (tasks/monitoring/drift/drift.py)."""

    key: str
    """The same alarm has the same key at every decision."""
    what: str
    """The columns that moved together, what stands out most first."""
    effect: float
    """The greatest effect size of what moved; 0 is no drift."""
    since: date

    @staticmethod
    def of(found: drift.DriftAlarm) -> OpenAlarm:
        """In the words of a decision."""
        columns = [moved.column for moved in found.moved]
        more = f" and {len(columns) - NAMED} more" if len(columns) > NAMED else ""
        effect = numbers.short(max(moved.effect for moved in found.moved))
        return OpenAlarm(found.key, f"{', '.join(columns[:NAMED])}{more}", effect, found.since)


@dataclass(frozen=True, kw_only=True)
class PolicyState:
    """What is known when a decision is asked for.

    Times are those of the rows, naive, and not of a clock on the wall: equal data give equal decisions, whenever they
    are asked for (docs/decisions/policy.md).
    """

    model: str
    now: datetime
    """How far the data reach: the time of the newest row."""
    data_version: str | None
    """The newest data version; None before the first."""
    trained_at: datetime | None = None
    """How far the data reached at the last training, whatever its verdict was; None: there was none."""
    trained_on: str | None = None
    """The data version of the last training."""
    learned_until: datetime | None = None
    """The time of the champion's newest training row: its age counts from there. None: there is no champion."""
    learned_rows: int = 0
    """How many rows the champion learned from."""
    newer_rows: int = 0
    """Rows that arrived since the champion was trained; those of its holdout are not among them."""
    newer_partitions: int = 0
    """How many partitions are newer than the champion's newest training row."""
    revised_rows: int = 0
    """Rows of the partitions that the champion learned from which are other now: altered, added, removed."""
    new_rows: int = 0
    """Rows that arrived since the last training, or are other than they were."""
    new_partitions: int = 0
    alarms: tuple[OpenAlarm, ...] = ()
    promised: MeanLoss | None = None
    """What the champion's evaluation promised when it was promoted: on the holdout of its training."""
    measured: MeanLoss | None = None
    """What the champion's predictions turned out to be worth, on the newest window that has labels."""
    estimated: MeanLoss | None = None
    """What they are likely to be worth on the newest window, whose labels are still to come."""
    edited: str = ""
    """What a person changed of what a candidate is made of (code, parameters, packages), in words; empty: nothing."""
    asked_by: str = ""
    """Who pressed the button; empty: nobody, an event or the clock woke the flow."""


@dataclass(frozen=True)
class Reason:
    """One thing that was asked, and what was found."""

    name: str
    holds: bool | None
    """None: it could not be answered, and counts as no."""
    words: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Decision:
    """Whether to train again, why, and everything that the answer was made from."""

    retrain: bool
    why: str
    """One sentence for a person."""
    reasons: tuple[tuple[Reason, ...], ...]
    """A tuple per line of the policy's `when`, with a reason per condition in it."""
    state: PolicyState
    policy: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The same facts under the same policy are the same decision."""
        return files.digest({"state": _plain(asdict(self.state)), "policy": self.policy})[:16]

    def to_dict(self) -> dict[str, Any]:
        """The record, as JSON values."""
        said: dict[str, Any] = _plain({"id": self.id, **asdict(self)})
        return said

    def to_json(self) -> str:
        """The record in one line; equal decisions give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def decide(state: PolicyState, policy: params.Retrain) -> Decision:
    """Whether to train again.

    In this order: a person who asks gets a training; what was never trained, or was edited, is trained; where no data
    version is new there is nothing to learn; within `gap_days` of the last training it is too early; where there is no
    champion, new data may make one; and then one line of `when` is enough, if every condition in it holds. A condition
    that cannot be answered does not hold.

    Args:
        state: what is known.
        policy: the section `retrain` of params.yaml.
    """
    reasons = tuple(tuple(_asked(state, name, limit) for name, limit in line.given()) for line in policy.when)
    retrain, why = _answer(state, policy, reasons)
    return Decision(retrain, why, reasons, state, policy.model_dump(exclude_none=True))


def _answer(state: PolicyState, policy: params.Retrain, reasons: tuple[tuple[Reason, ...], ...]) -> tuple[bool, str]:
    holding = [line for line in reasons if all(reason.holds for reason in line)]
    found = "; or ".join(" and ".join(reason.words for reason in line) for line in holding)
    if (certain := _beforehand(state)) is not None:
        also = f" (the policy says yes: {found})" if found else ""
        return certain[0], certain[1] + also
    if (wait := _too_early(state, policy)) is not None:
        return False, f"{wait}; else it would: {found}" if found else wait
    if state.learned_until is None:
        return True, "no candidate has become champion yet, and the data are new"
    if holding:
        return True, found
    return False, f"no: {'; '.join(_lacking(line) for line in reasons) or 'the policy never retrains by itself'}"


def _beforehand(state: PolicyState) -> tuple[bool, str] | None:
    """The answer where no policy is needed."""
    certain = (
        (bool(state.asked_by), True, f"{state.asked_by} asked for it"),
        (state.data_version is None, False, "no: there is no data version yet"),
        (state.trained_at is None, True, "nothing was ever trained"),
        (bool(state.edited), True, f"{state.edited} changed since the last training"),
        (state.data_version == state.trained_on, False, "no: the last training knew this data version, nothing is new"),
    )
    return next(((answer, why) for holds, answer, why in certain if holds), None)


def _too_early(state: PolicyState, policy: params.Retrain) -> str | None:
    assert state.trained_at is not None
    since = (state.now - state.trained_at) / DAY
    if since >= policy.gap_days:
        return None
    return f"no: the last training was {_days(since)} ago, the gap is {_days(policy.gap_days)}"


def _lacking(line: tuple[Reason, ...]) -> str:
    """What keeps a line from holding."""
    return " and ".join(reason.words for reason in line if not reason.holds)


# ── what a line of `when` may ask ─────────────────────────────────────────────────────────────────


def _asked(state: PolicyState, name: str, limit: float) -> Reason:
    return _CONDITIONS[name](state, name, limit)


def _new_rows(state: PolicyState, name: str, limit: float) -> Reason:
    words = f"{state.new_rows:,} new rows, {limit:,.0f} are asked"
    return Reason(name, state.new_rows >= limit, words, state.new_rows, limit)


def _new_partitions(state: PolicyState, name: str, limit: float) -> Reason:
    words = f"{state.new_partitions} new partitions, {limit:g} are asked"
    return Reason(name, state.new_partitions >= limit, words, state.new_partitions, limit)


def _growth(state: PolicyState, name: str, limit: float) -> Reason:
    if not state.learned_rows:
        return _unknown(name, "there is no champion that could have learned from fewer rows", limit)
    share = numbers.short(state.newer_rows / state.learned_rows)
    words = (
        f"{state.newer_rows:,} rows came since the champion was trained, {share:.0%} of the {state.learned_rows:,} it "
    )
    return Reason(name, share >= limit, f"{words}learned from; {limit:.0%} are asked", share, limit)


def _new_share(state: PolicyState, name: str, limit: float) -> Reason:
    if not state.learned_rows:
        return _unknown(name, "there is no champion that could have learned from fewer rows", limit)
    share = numbers.short(state.new_rows / state.learned_rows)
    words = f"{state.new_rows:,} rows came since the last training, {share:.0%} of what the champion learned from"
    return Reason(name, share >= limit, f"{words}; {limit:.0%} are asked", share, limit)


def _revised(state: PolicyState, name: str, limit: float) -> Reason:
    if not state.learned_rows:
        return _unknown(name, "there is no champion that could have learned from what was revised", limit)
    share = numbers.short(state.revised_rows / state.learned_rows)
    words = (
        f"{state.revised_rows:,} rows were revised since, {share:.1%} of the {state.learned_rows:,} that the champion "
    )
    return Reason(name, share >= limit, f"{words}learned from; {limit:.1%} are asked", share, limit)


def _months(state: PolicyState, name: str, limit: float) -> Reason:
    if state.trained_at is None:
        return _unknown(name, "nothing was trained yet", limit)
    begun = _month(state.now) - _month(state.trained_at)
    words = f"{begun} calendar months began since the last training, {limit:g} are asked"
    return Reason(name, begun >= limit, words, begun, limit)


def _age_days(state: PolicyState, name: str, limit: float) -> Reason:
    if state.learned_until is None:
        return _unknown(name, "there is no champion whose age could be told", limit)
    age = numbers.short((state.now - state.learned_until) / DAY)
    words = (
        f"the champion learned from rows until {state.learned_until:%Y-%m-%d}, {_days(age)} ago; {limit:g} are asked"
    )
    return Reason(name, age >= limit, words, age, limit)


def _age_partitions(state: PolicyState, name: str, limit: float) -> Reason:
    if state.learned_until is None:
        return _unknown(name, "there is no champion whose age could be told", limit)
    words = f"{state.newer_partitions} partitions are newer than what the champion learned from, {limit:g} are asked"
    return Reason(name, state.newer_partitions >= limit, words, state.newer_partitions, limit)


def _drift(state: PolicyState, name: str, limit: float) -> Reason:
    if not state.alarms:
        return Reason(name, False, "no drift alarm is open", 0.0, limit)
    worst = max(state.alarms, key=lambda alarm: (alarm.effect, alarm.what))
    more = len(state.alarms) - 1
    others = f" (and {more} more alarm{'s' if more > 1 else ''})" if more else ""
    words = f"drift in {worst.what} since {worst.since:%Y-%m-%d}, effect {worst.effect:.3g}{others}, {limit:g} is asked"
    return Reason(name, worst.effect >= limit, words, numbers.short(worst.effect), limit)


def _measured_loss(state: PolicyState, name: str, limit: float) -> Reason:
    if state.measured is None:
        return _unknown(name, "the quality is not known: no labels came yet", limit)
    return _lost(state, name, limit, state.measured, f"the measured loss of {state.measured.labels:,} labels")


def _estimated_loss(state: PolicyState, name: str, limit: float) -> Reason:
    if state.estimated is None:
        return _unknown(name, "the quality is not known: there is no estimate", limit)
    return _lost(state, name, limit, state.estimated, "the estimated loss")


def _lost(state: PolicyState, name: str, limit: float, now: MeanLoss, what: str) -> Reason:
    """Whether a loss is above the promised one by more than the limit, a share of it, beyond doubt.

    The lower limit of now − (1 + limit) · promised is put together from the intervals of both, each known by itself:
    the difference less √((now − now's low)² + ((1 + limit) · (promised's high − promised))²). Zou & Donner 2008,
    Statistics in Medicine 27, 1693-1702 (MOVER), after Newcombe 1998.
    """
    promised = state.promised
    if promised is None:
        return _unknown(name, "the quality cannot be compared: nothing was promised", limit)
    times = 1 + limit
    doubt = math.hypot(now.loss - now.low, times * (promised.high - promised.loss))
    if promised.loss <= 0 or not math.isfinite(doubt):
        return _unknown(name, f"{what} cannot be compared with the promised one: there is no interval", limit)
    change = numbers.short(now.loss / promised.loss - 1)
    beyond = now.loss - times * promised.loss > doubt
    certain = "beyond doubt" if beyond else "not beyond doubt" if change > limit else "within what is allowed"
    words = f"{what} is {now.loss:.4g}, {abs(change):.1%} {'above' if change >= 0 else 'below'} the promised "
    words += f"{promised.loss:.4g}, {limit:.1%} are allowed: {certain}"
    return Reason(name, beyond, words, change, limit)


_CONDITIONS: dict[str, Callable[[PolicyState, str, float], Reason]] = {
    "new_rows": _new_rows,
    "new_partitions": _new_partitions,
    "growth": _growth,
    "new_share": _new_share,
    "revised": _revised,
    "months": _months,
    "age_days": _age_days,
    "age_partitions": _age_partitions,
    "drift": _drift,
    "measured_loss": _measured_loss,
    "estimated_loss": _estimated_loss,
}
"""One per field of params.When (a test holds them together)."""


# ── numbers and words ─────────────────────────────────────────────────────────────────────────────


def _unknown(name: str, words: str, limit: float) -> Reason:
    return Reason(name, None, words, None, limit)


def _month(when: datetime) -> int:
    return when.year * 12 + when.month


def _days(days: float) -> str:
    return f"{days:.3g} day{'' if days == 1 else 's'}"


def _plain(value: Any) -> Any:
    """A value as JSON has it: times as texts, numbers to nine digits, and null for what is infinite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return numbers.short(value) if math.isfinite(value) else None
    return value
