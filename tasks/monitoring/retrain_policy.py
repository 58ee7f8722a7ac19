"""Retrain policy: a pure function from what is known to a decision with reasons.

`decide` reads no file and no clock, so a flow, the backtest and a test get the same answer from the same facts. A
decision is a record, «no» as well: every fact, the policy, and the answer to each condition in words. It holds no time
but `PolicyState.now`: equal facts give equal bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tasks.ground import files, numbers
from tasks.ground.words import listed, many

if TYPE_CHECKING:
    import pandas as pd

    from tasks.ground import params
    from tasks.modelling.metrics import Floats
    from tasks.monitoring.drift.moves import DriftAlarm

DAY = timedelta(days=1)

NAMED = 3
"""So many columns of an alarm are named."""

WINDOW_DAYS = 28
"""MeanLoss is measured on the rows of so many days, at most: in production as in a backtest."""


UNDATED = datetime(1970, 1, 1)
"""Stands for the time of rows that have none: such data have no clock, and what asks for one cannot be answered."""


@dataclass(frozen=True)
class MeanLoss:
    """The mean loss of a model on some rows, or an estimate of it, and how sure that is. Lower is better."""

    loss: float
    low: float
    high: float
    """The interval; of too few days −inf and +inf."""
    labels: int
    """How many rows with a label it is of; 0 for an estimate."""
    since: datetime
    until: datetime
    """The window: from the first row's time to the last one's."""

    @staticmethod
    def of(
        losses: Floats, times: pd.Series[Any], resamples: int, confidence: float, *, may_be_by_row: bool = False
    ) -> MeanLoss:
        """From the loss of each row; days are resampled, as rows of one day belong together.

        `may_be_by_row`: of fewer days than say how days differ, rows are.
        """
        from tasks.modelling import metrics

        blocks = metrics.blocks(times)[0] if may_be_by_row else metrics.day_blocks(times)
        resampled = metrics.bootstrap_means(losses, blocks, resamples, 0)
        low, high = metrics.interval(resampled, confidence)
        has_interval = math.isfinite(low) and math.isfinite(high)
        return MeanLoss(
            loss=numbers.short(losses.mean()),
            low=numbers.short(low) if has_interval else -math.inf,
            high=numbers.short(high) if has_interval else math.inf,
            labels=len(losses),
            since=UNDATED if times.isna().all() else times.min().to_pydatetime(),
            until=UNDATED if times.isna().all() else times.max().to_pydatetime(),
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
    def of(alarm: DriftAlarm) -> OpenAlarm:
        """In the words of a decision."""
        columns = [moved.column for moved in alarm.moved]
        effect = numbers.short(max(moved.effect for moved in alarm.moved))
        return OpenAlarm(alarm.key, listed(columns, NAMED), effect, alarm.since)


@dataclass(frozen=True, kw_only=True)
class PolicyState:
    """What is known at a decision.

    Times are those of the rows, naive, and not of a wall clock: equal data give equal decisions at any time
    (docs/decisions/policy.md).
    """

    model: str
    now: datetime
    """How far the data reach: the time of the newest row; UNDATED where rows have none."""
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
    """Rows altered, added or removed since in the partitions that the champion learned from."""
    new_rows: int = 0
    """Rows that arrived or changed since the last training."""
    new_partitions: int = 0
    alarms: tuple[OpenAlarm, ...] = ()
    promised: MeanLoss | None = None
    """What the champion's evaluation promised when it was promoted: on the holdout of its training."""
    measured: MeanLoss | None = None
    """The champion's measured loss, on the newest window that has labels."""
    estimated: MeanLoss | None = None
    """Its estimated loss on the newest window, whose labels are still to come."""
    edited: str = ""
    """What a person changed of what a candidate is made of (code, parameters, packages), in words; empty: nothing."""
    asked_by: str = ""
    """The person who requested a training; empty: an event or the schedule started the flow."""


@dataclass(frozen=True)
class Reason:
    """A condition, and its answer."""

    name: str
    holds: bool | None
    """None: it cannot be answered, and counts as no."""
    words: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Decision:
    """Whether to train again, why, and everything that this was decided on."""

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
        return files.digest({"state": numbers.plain(asdict(self.state)), "policy": self.policy})[:16]

    def to_dict(self) -> dict[str, Any]:
        """The record, as JSON values."""
        record: dict[str, Any] = numbers.plain({"id": self.id, **asdict(self)})
        return record

    def to_json(self) -> str:
        """The record in one line; equal decisions give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def decide(state: PolicyState, policy: params.Retrain) -> Decision:
    """Whether to train again.

    In this order: a person's request is granted; what was never trained, or was edited, is trained; without a new data
    version there is nothing to learn; within `gap_days` of the last training it is too early; without a champion, new
    data may make one; and then one line of `when` is enough, if every condition in it holds. A condition that cannot be
    answered does not hold.

    Args:
        state: what is known.
        policy: the section `retrain` of params.yaml.
    """
    reasons = tuple(tuple(_ask(state, name, limit) for name, limit in line.given()) for line in policy.when)
    retrain, why = _answer(state, policy, reasons)
    return Decision(retrain, why, reasons, state, policy.model_dump(exclude_none=True))


def _answer(state: PolicyState, policy: params.Retrain, reasons: tuple[tuple[Reason, ...], ...]) -> tuple[bool, str]:
    holding = [line for line in reasons if all(reason.holds for reason in line)]
    why = "; or ".join(" and ".join(reason.words for reason in line) for line in holding)
    if (certain := _without_policy(state)) is not None:
        also = f" (the policy says yes: {why})" if why else ""
        return certain[0], certain[1] + also
    if (wait := _too_early(state, policy)) is not None:
        return False, f"{wait}; else it would: {why}" if why else wait
    if state.learned_until is None:
        return True, "no candidate has become champion yet, and the data are new"
    if holding:
        return True, why
    lacking = "; ".join(" and ".join(reason.words for reason in line if not reason.holds) for line in reasons)
    return False, f"no: {lacking or 'the policy never retrains by itself'}"


def _without_policy(state: PolicyState) -> tuple[bool, str] | None:
    """The answer where no policy is needed."""
    cases = (
        (bool(state.asked_by), True, f"{state.asked_by} asked for it"),
        (state.data_version is None, False, "no: there is no data version yet"),
        (state.trained_at is None, True, "nothing was ever trained"),
        (bool(state.edited), True, f"{state.edited.replace(' is modified', '')} changed since the last training"),
        (state.data_version == state.trained_on, False, "no: the last training knew this data version, nothing is new"),
    )
    return next(((answer, why) for holds, answer, why in cases if holds), None)


def _too_early(state: PolicyState, policy: params.Retrain) -> str | None:
    assert state.trained_at is not None
    if state.now == UNDATED:
        return None
    since = (state.now - state.trained_at) / DAY
    if since >= policy.gap_days:
        return None
    return f"no: the last training was {_days(since)} ago, the gap is {_days(policy.gap_days)}"


# ── the conditions of `when` ──────────────────────────────────────────────────────────────────────


def _ask(state: PolicyState, name: str, limit: float) -> Reason:
    if name in ("measured_loss", "estimated_loss"):
        return _loss_reason(state, name, limit)
    if name == "drift":
        return _drift_reason(state, limit)
    measure, words = _CONDITIONS[name]
    value = measure(state)
    if value is None:
        why = "nothing was trained yet" if name == "months" else "there is no champion to compare with"
        why = "the rows have no time" if state.now == UNDATED and name in ("months", "age_days") else why
        return Reason(name, None, why, None, limit)
    counts = {
        "new_rows": many(value, "new row"),
        "new_partitions": many(value, "new partition"),
        "months": many(value, "calendar month"),
        "partitions": many(value, "partition is", "partitions are"),
    }
    words = words.format(state=state, value=value, limit=limit, days=_days(value), **counts)
    return Reason(name, value >= limit, words, value, limit)


def _share_of_learned(rows: int, state: PolicyState) -> float | None:
    return numbers.short(rows / state.learned_rows) if state.learned_rows else None


def _age(state: PolicyState) -> float | None:
    if state.learned_until is None or state.now == UNDATED:
        return None
    return numbers.short((state.now - state.learned_until) / DAY)


def _months(state: PolicyState) -> int | None:
    before, now = state.trained_at, state.now
    return None if before is None or now == UNDATED else 12 * (now.year - before.year) + now.month - before.month


_CONDITIONS: dict[str, tuple[Callable[[PolicyState], float | None], str]] = {
    "new_rows": (lambda state: state.new_rows, "{new_rows}, {limit:,.0f} are asked"),
    "new_partitions": (lambda state: state.new_partitions, "{new_partitions}, {limit:g} are asked"),
    "growth": (
        lambda state: _share_of_learned(state.newer_rows, state),
        (
            "{state.newer_rows:,} rows came since the champion was trained, {value:.0%} of the {state.learned_rows:,} "
            "it learned from; {limit:.0%} are asked"
        ),
    ),
    "new_share": (
        lambda state: _share_of_learned(state.new_rows, state),
        (
            "{state.new_rows:,} rows came since the last training, {value:.0%} of what the champion learned from; "
            "{limit:.0%} are asked"
        ),
    ),
    "revised": (
        lambda state: _share_of_learned(state.revised_rows, state),
        (
            "{state.revised_rows:,} rows were revised since, {value:.1%} of the {state.learned_rows:,} that the "
            "champion learned from; {limit:.1%} are asked"
        ),
    ),
    "months": (_months, "{months} began since the last training, {limit:g} are asked"),
    "age_days": (
        _age,
        "the champion learned from rows until {state.learned_until:%Y-%m-%d}, {days} ago; {limit:g} are asked",
    ),
    "age_partitions": (
        lambda state: state.newer_partitions if state.learned_until else None,
        "{partitions} newer than what the champion learned from, {limit:g} are asked",
    ),
}
"""Name → the value that is compared with the limit (None: there is none), and the reason in words. With drift and the
two losses these are the fields of params.When (a test compares them)."""


def _drift_reason(state: PolicyState, limit: float) -> Reason:
    if not state.alarms:
        return Reason("drift", False, "no drift alarm is open", 0.0, limit)
    worst = max(state.alarms, key=lambda alarm: (alarm.effect, alarm.what))
    more, effect = len(state.alarms) - 1, numbers.short(worst.effect)
    others = f" (and {many(more, 'more alarm')})" if more else ""
    words = f"drift in {worst.what} since {worst.since:%Y-%m-%d}, effect {worst.effect:.3g}{others}, {limit:g} is asked"
    return Reason("drift", effect >= limit, words, effect, limit)


def _loss_reason(state: PolicyState, name: str, limit: float) -> Reason:
    """Whether a loss is above the promised one by more than the limit, a share of it, beyond doubt.

    The lower limit of now − (1 + limit) · promised is put together from the intervals of both, each known by itself:
    the difference less √((now − now's low)² + ((1 + limit) · (promised's high − promised))²). Zou & Donner 2008,
    Statistics in Medicine 27, 1693-1702 (MOVER), after Newcombe 1998.
    """
    is_measured = name == "measured_loss"
    now, promised = state.measured if is_measured else state.estimated, state.promised
    if now is None:
        why = "no labels came yet" if is_measured else "there is no estimate"
        return Reason(name, None, f"the quality is not known: {why}", None, limit)
    if promised is None:
        return Reason(name, None, "the quality cannot be compared: nothing was promised", None, limit)
    what = f"the measured loss of {now.labels:,} labels" if is_measured else "the estimated loss"
    doubt = math.hypot(now.loss - now.low, (1 + limit) * (promised.high - promised.loss))
    if promised.loss <= 0 or not math.isfinite(doubt):
        words = f"{what} cannot be compared with the promised one: there is no interval"
        return Reason(name, None, words, None, limit)
    change = numbers.short(now.loss / promised.loss - 1)
    is_beyond = now.loss - (1 + limit) * promised.loss > doubt
    certainty = "beyond doubt" if is_beyond else "not beyond doubt" if change > limit else "within what is allowed"
    words = f"{what} is {now.loss:.4g}, {abs(change):.1%} {'above' if change >= 0 else 'below'} the promised "
    words += f"{promised.loss:.4g}, {limit:.1%} are allowed: {certainty}"
    return Reason(name, is_beyond, words, change, limit)


def _days(days: float) -> str:
    return f"{days:.3g} day{'' if days == 1 else 's'}"
