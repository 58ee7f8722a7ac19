"""Promotion gate: may the challenger replace the champion? Each check has a value, a threshold and a reason.

Both are scored on the same holdout rows, on which neither was trained. What is compared is the paired difference of
the loss, challenger minus champion (negative is better); its uncertainty comes from resampling whole days, because
the flights of one stormy day are late together (block bootstrap; Künsch 1989, doi:10.1214/aos/1176347265).

The gate fails closed: a check that cannot run fails with its reason, and raises nothing. The same pair on the same
holdout gives the same verdict, byte for byte: the seed comes from the rows, numbers are rounded to nine digits, and a
verdict holds no time, no host and no path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.ground import files, numbers
from tasks.ground.errors import EvergreenError, did_you_mean
from tasks.ground.task_kinds import KINDS, Task
from tasks.ground.words import listed, many
from tasks.modelling import metrics, rows
from tasks.release.gate import fairness
from tasks.release.gate.verdict import NO_CHAMPION, NOT_JUDGED, Check, Moves, Verdict, loss_words, span, worst_first
from tasks.runtime import answer_columns, request_schema

if TYPE_CHECKING:
    import pandas as pd

    from tasks.ground import params
    from tasks.release.gate.training_overlap import TrainingOverlap

FEWEST_DAYS = 5
"""A bootstrap over fewer days says next to nothing: its interval is far too short."""

FEWEST_ANOMALIES = 10
"""Rows that are known to be anomalies, to judge an anomaly model by."""

LATER = ("fairness", "coverage", "agreement")
"""Keys of a rule that came later: a verdict about the same data by the same rule has the same name as before."""

DOUBT_MARGINS = 4
"""The benefit of the doubt for a slice is worth at most this many margins. See `_Holdout.slice_questions`."""

DATA_REASONS = (ArithmeticError, EvergreenError, LookupError, TypeError, ValueError)
"""What bad input makes metrics, pandas and numpy raise. Anything else is a defect, and is raised as one."""

Side = Literal["challenger", "champion", "baseline"]
SIDES: tuple[Side, Side] = ("challenger", "champion")
Features = Mapping[str, Mapping[str, Any]]
Flags = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Blocks = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Contender:
    """The challenger or the champion."""

    candidate: str
    predictions: pd.DataFrame | None
    """A row per holdout row, in the same order; None where there are none, and `fault` says why."""
    trained_on: Hashes | None
    """Hashes of its training rows (tasks.modelling.rows.row_hashes)."""
    features: Features | None
    """What a request holds: name → {type, min, max, nullable}."""
    fault: str = ""
    overlap: TrainingOverlap | None = None
    """Which holdout rows it was trained on, where more than their ids is known."""
    when_missing: pd.DataFrame | None = None
    """Its predictions for some holdout rows with every nullable feature missing; the same rows for both contenders."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that a verdict depends on, apart from the rule."""

    model: str
    task: Task
    holdout: pd.DataFrame
    """Columns: id, time, label, and those in `slices`."""
    slices: tuple[str, ...]
    challenger: Contender
    champion: Contender | None
    baseline: pd.DataFrame
    """The predictions of the challenger's trivial baseline, a row per holdout row."""
    champion_age: int | None = None
    """How many partitions are newer than the champion's training."""
    latency_ms: float | None = None
    size_mb: float | None = None
    split: Literal["time", "random"] = "time"
    cost: str | None = None
    """The loss that counts what errors of a decision cost: `cost(1, 10)`."""
    decision: str = ""
    """How the challenger decides, in words; empty where it is for the most probable class."""
    without: Mapping[str, list[str]] = field(default_factory=dict)
    """Feature → the partitions in every row of which it is missing."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """What the evaluation found out of the challenger beside what can be computed of these rows: metric → value."""

    @property
    def contenders(self) -> dict[str, Contender]:
        """The challenger, and the champion where there is one."""
        champion = {} if self.champion is None else {"champion": self.champion}
        return {"challenger": self.challenger, **champion}


@np.errstate(over="ignore", invalid="ignore")  # a number that overflows is not finite, and the check on it fails
def judge(case: Comparison, rule: params.Gate, resamples: int = 1000) -> Verdict:
    """The verdict on a challenger: promoted when every check passed."""
    holdout = _Holdout(case, rule, resamples)
    checks = [_check(*question) for question in holdout.questions()]
    return Verdict(
        id=verdict_id(case, rule, resamples),
        model=case.model,
        challenger=case.challenger.candidate,
        champion=case.champion.candidate if case.champion else None,
        promoted=all(check.passed for check in checks),
        summary=_summary(case, checks),
        checks=tuple(checks),
        rule=rule.model_dump(),
        rule_digest=rule_digest(rule),
        holdout=holdout.extent(),
        resamples=resamples,
        seed=holdout.seed,
        moves=holdout.moves(),
    )


def verdict_id(case: Comparison, rule: params.Gate, resamples: int) -> str:
    """The identity of a verdict: of all it was made from. A candidate's name stands for its predictions and schema."""
    champion = case.champion
    made_from: dict[str, Any] = {
        "model": case.model,
        "challenger": [case.challenger.candidate, case.challenger.fault],
        "champion": [champion.candidate, champion.fault, case.champion_age, *_overlap(champion)] if champion else None,
        "holdout": holdout_digest(case.holdout, case.slices),
        "split": case.split,
        "rule": rule_digest(rule),
        "facts": [str(case.latency_ms), str(case.size_mb)],
        "resamples": resamples,
    }
    if case.without:
        made_from["without"] = dict(case.without)
    if case.cost:
        made_from["cost"] = case.cost
    return files.digest(made_from)[:16]


def _overlap(champion: Contender) -> list[str]:
    """Its part of a verdict's identity; empty where its rows were recognised by their ids alone."""
    overlap = champion.overlap
    if overlap is None or not (overlap.note or overlap.doubt or overlap.remade):
        return []
    remade = [overlap.remade] if overlap.remade else []
    return [overlap.note, overlap.doubt, *remade, _sha(np.flatnonzero(overlap.seen).astype(np.uint64))]


def rule_digest(rule: params.Gate) -> str:
    """The identity of a rule; one that names none of LATER is what it was before these could be named."""
    usual = {name: type(rule).model_fields[name].default for name in LATER}
    limits = {name: limit for name, limit in rule.model_dump().items() if name not in usual or limit != usual[name]}
    return files.digest(limits)[:16]


def holdout_digest(holdout: pd.DataFrame, slices: tuple[str, ...] = ()) -> str:
    """The identity of the rows: their ids, times, labels and slices, in order."""
    import pandas as pd

    columns = {}
    for name in ("id", "time", *answer_columns.labels(holdout.columns), "weight", *slices):
        if name in holdout:
            hashes = pd.util.hash_array(holdout[name].astype(str).to_numpy(dtype=object), categorize=True)
            columns[name] = f"{hashes.dtype} {len(hashes)} {_sha(hashes)}"
    return files.digest(columns)[:16]


def _sha(values: Hashes) -> str:
    return hashlib.sha256(values.astype("<u8").tobytes()).hexdigest()


# ── the checks ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _CheckResult:
    """What a check computes, before it is rounded and recorded."""

    passed: bool
    reason: str
    value: float | None = None
    threshold: float | None = None
    """None: the one that the question names."""
    interval: tuple[float, float] | None = None


Question = tuple[str, float | None, Callable[[], _CheckResult]]
"""The name of a check, its threshold, and what computes the answer; it raises one of DATA_REASONS if it cannot."""


def _check(name: str, threshold: float | None, compute: Callable[[], _CheckResult]) -> Check:
    """Run a check. Where its input does not let it run, it fails with that reason."""
    try:
        result = compute()
        limit = threshold if result.threshold is None else result.threshold
        value, limit = (None if number is None else _rounded(number) for number in (result.value, limit))
        interval = (_rounded(result.interval[0]), _rounded(result.interval[1])) if result.interval else None
    except DATA_REASONS as error:
        return Check(name, None, threshold, False, f"could not run: {describe_error(error)}")
    return Check(name, value, limit, result.passed, result.reason, interval)


def _learned_nothing_of(lacking: Sequence[str]) -> str:
    return (
        f": no training row is of {'that class' if len(lacking) == 1 else 'those classes'}. With the next partition it "
        f"learns them; or let split.by be random, or models/…/rows put rare classes together"
    )


@dataclass(frozen=True)
class _Holdout:
    """The compared holdout rows, and the checks on them."""

    case: Comparison
    rule: params.Gate
    resamples: int
    _losses: dict[Side, Floats] = field(default_factory=dict)

    def questions(self) -> Iterator[Question]:
        """Everything that is asked, in the order of the record."""
        case, rule = self.case, self.rule
        yield "rows_unseen", rule.min_rows, self.rows_unseen
        for kind, limits in (("floors", rule.floors), ("ceilings", rule.ceilings)):
            for metric, limit in sorted(limits.items()):
                yield f"{kind}:{metric}", limit, partial(self.within_limit, metric, limit, is_floor=kind == "floors")
        yield "beats_baseline", 0.0, self.beats_baseline
        yield "improvement", 0.0 if rule.rule == "better" else rule.margin, self.improvement
        if case.task == "anomaly":
            yield "agreement", rule.agreement, self.agreement
        else:
            yield from self.output_questions()
            yield from self.slice_questions()
        for asked in rule.fairness:
            yield f"fairness:{asked.column}:{asked.metric}", asked.at_most, partial(self.fairness_gap, asked)
        if case.task != "anomaly":
            yield "calibration", rule.calibration, self.calibration
        if case.task == "forecast":
            yield "coverage", rule.coverage[0], self.coverage
        for name, value, limit, words in (
            ("latency", case.latency_ms, rule.latency_ms, "one row takes {:.3g} ms, {:g} are allowed"),
            ("size", case.size_mb, rule.size_mb, "the release takes {:.3g} MB, {:g} are allowed"),
        ):
            yield name, limit, partial(_at_most, value, limit, words)
        yield "schema", 0.0, partial(_schema, case)
        if case.decision:  # reported, as what metrics are of
            yield "decision", None, lambda: _CheckResult(True, case.decision)
        if case.without:  # reported, and no reason to refuse: the loss shows what it costs
            yield "columns", None, lambda: _CheckResult(True, _without(case.without))

    @cached_property
    def seed(self) -> int:
        return int(holdout_digest(self.case.holdout, self.case.slices)[:8], 16)

    # the rows

    @cached_property
    def hashes(self) -> Hashes:
        ids = self.case.holdout["id"]
        if (repeated := ids.duplicated()).any():
            example = f"{ids[repeated].iloc[0]!r} for one"
            raise ValueError(f"{int(repeated.sum())} of {len(ids)} row ids stand twice in the holdout, {example}")
        return rows.row_hashes(ids)

    @cached_property
    def seen(self) -> Flags:
        """Which holdout rows the challenger or the champion was trained on."""
        seen = np.zeros(len(self.hashes), dtype=bool)
        for side, contender in self.case.contenders.items():
            if contender.overlap is not None:
                seen |= contender.overlap.seen
            elif contender.trained_on is not None:
                seen |= np.isin(self.hashes, contender.trained_on)
            else:
                raise ValueError(f"what the {side} was trained on is not known{_because(contender.fault)}")
        return seen

    @cached_property
    def rows(self) -> pd.DataFrame:
        unseen = self.case.holdout.loc[~self.seen].reset_index(drop=True)
        if unseen.empty:
            raise ValueError("there is no holdout row that neither was trained on")
        if self.case.task != "anomaly" and (missing := len(unseen) - len(metrics.labelled(self.case.task, unseen))):
            raise ValueError(f"{missing} of {len(unseen)} holdout rows have no label")
        return unseen

    @cached_property
    def label(self) -> pd.Series[Any] | pd.DataFrame:
        """The label of each of them; of several, a table with a column for each."""
        return metrics.label_of(self.rows)

    @cached_property
    def days(self) -> Blocks:
        missing = int(self.rows["time"].isna().sum())
        if 0 < missing < len(self.rows) or (missing and self.case.split == "time"):
            raise ValueError(f"{missing} of {len(self.rows)} holdout rows have no time")
        return np.asarray(metrics.day_blocks(self.rows["time"]), dtype=np.int64)

    @property
    def day_count(self) -> int:
        """How many days there are; 0 where rows have no time."""
        days = len(np.unique(self.days))
        return days if self.rows["time"].notna().all() else 0

    @cached_property
    def by_day(self) -> bool:
        """Whether days are resampled. Rows drawn at random are exchangeable: with few days, groups of them do."""
        return self.case.split == "time" or len(np.unique(self.days)) >= FEWEST_DAYS

    @cached_property
    def blocks(self) -> Blocks:
        """The block of each row: what is resampled as a whole."""
        if not self.by_day:
            order = np.argsort(np.argsort(self.hashes[~self.seen], kind="stable"), kind="stable")
            return np.asarray(order % 1000, dtype=np.int64)
        if (days := len(np.unique(self.days))) < FEWEST_DAYS:
            raise ValueError(
                f"an interval over days needs {FEWEST_DAYS} of them, the holdout has {days}: "
                f"hold out more partitions (params.yaml: split.holdout), or, where the times of rows say nothing, "
                f"let split.by be random"
            )
        return self.days

    # the predictions

    def predictions(self, side: Side) -> pd.DataFrame:
        contender = self.case.contenders.get(side)
        frame = self.case.baseline if side == "baseline" else contender.predictions if contender else None
        if frame is None:
            raise ValueError(f"the {side} has no predictions{_because(contender.fault if contender else NO_CHAMPION)}")
        if len(frame) != len(self.seen):
            raise ValueError(f"the {side} has {len(frame)} predictions for {len(self.seen)} rows")
        frame = frame.loc[~self.seen].reset_index(drop=True)
        self._refuse_other_columns(side, frame)
        if unsound := int((~np.isfinite(metrics.scores_of(frame).to_numpy(dtype=np.float64)).all(axis=1)).sum()):
            raise ValueError(f"{unsound} of {len(frame)} predictions of the {side} are NaN or infinite")
        return frame

    def _refuse_other_columns(self, side: Side, frame: pd.DataFrame) -> None:
        """The labels need their columns. A class that the champion has never seen has, from it, the probability 0."""
        for column in answer_columns.labels(self.rows.columns):
            self._refuse_lacking_columns(side, frame, column)

    def _refuse_lacking_columns(self, side: Side, frame: pd.DataFrame, label: str) -> None:
        output = answer_columns.split(label)[0]
        needed = ["prediction", "anomaly_score"][: 1 + (self.case.task == "anomaly")]
        if self.case.task == "classification":
            needed = [f"p_{value}" for value in sorted(self.rows[label].unique().tolist(), key=str)]
        needed = [answer_columns.column(output, name) for name in needed] if output else needed
        if self.case.task == "classification" and side == "champion":
            if set(needed) & set(frame):
                return
            named = " and ".join(", ".join(sorted(map(str, columns))) for columns in (frame, needed))
            raise ValueError(f"the champion knows none of the classes of the holdout: {named}")
        if lacking := [column for column in needed if column not in frame]:
            why = f"the {side} has no {listed(lacking, 5)}, which the labels of the holdout ask for"
            raise ValueError(why + (_learned_nothing_of(lacking) if self.case.task == "classification" else ""))

    def loss(self, side: Side) -> Floats:
        if side not in self._losses:
            losses = metrics.losses(self.loss_name, self.label, self.predictions(side))
            if wrong := int((~np.isfinite(losses)).sum()):
                raise ValueError(f"the {self.loss_name} of the {side} is not a number for {wrong} rows")
            self._losses[side] = losses
        return self._losses[side]

    @property
    def loss_name(self) -> str:
        if self.rule.loss == "cost" and not self.case.cost:
            raise ValueError("what errors cost is not known (params.yaml: estimator.decision.cost)")
        return self.case.cost or "" if self.rule.loss == "cost" else self.rule.loss

    @cached_property
    def weights(self) -> Floats | None:
        """How often each row counts; None where all count once."""
        weights = self.rows["weight"].to_numpy(dtype=np.float64) if "weight" in self.rows else None
        if weights is not None and len(weights) and not weights.any():
            raise ValueError(f"the weight of each of the {len(weights):,} rows that are compared is 0: none counts")
        return weights

    def mean(self, values: Floats, members: Flags | slice = slice(None)) -> float:
        weights = None if self.weights is None else self.weights[members]
        return float(values.mean() if weights is None else np.average(values, weights=weights))

    def resampled(self, difference: Floats, members: Flags | slice = slice(None)) -> Floats:
        """The mean difference of some rows on each resample of their blocks."""
        weights = None if self.weights is None else self.weights[members]
        means = metrics.bootstrap_means(difference, self.blocks[members], self.resamples, self.seed, weights)
        return np.asarray(means, dtype=np.float64)

    # what the verdict records of both

    def extent(self) -> dict[str, Any]:
        """`Verdict.holdout`."""
        holdout = self.case.holdout
        extent: dict[str, Any] = {"digest": holdout_digest(holdout, self.case.slices), "rows": len(holdout)}
        try:
            times = self.rows["time"]
            extent["compared"] = len(self.rows)
            extent |= {"days": self.day_count, "blocks": "day" if self.by_day else "group of rows"}
            if self.day_count:
                extent |= {"from": times.min().isoformat(), "until": times.max().isoformat()}
        except (*DATA_REASONS, AttributeError):  # the checks say why
            extent.setdefault("compared", 0)
        return extent

    def moves(self) -> Moves | None:
        challenger, champion = self.case.challenger, self.case.champion
        if champion is None:
            return None
        try:
            distance = distances(self.case.task, self.predictions("champion"), self.predictions("challenger"))
            most = distance.max()
            if champion.when_missing is not None and challenger.when_missing is not None:
                most = max(most, distances(self.case.task, champion.when_missing, challenger.when_missing).max())
            return Moves(len(distance), _rounded(distance.mean()), _rounded(most))
        except DATA_REASONS:  # the checks say why
            return None

    # the checks

    def rows_unseen(self) -> _CheckResult:
        """There are enough rows that neither was trained on."""
        seen, total = int(self.seen.sum()), len(self.seen)
        unseen = total - seen
        overlaps = [contender.overlap for contender in self.case.contenders.values() if contender.overlap]
        if doubt := next((overlap.doubt for overlap in overlaps if overlap.doubt), ""):
            return _CheckResult(False, doubt, unseen)
        left_out = f"; {seen:,} that either was trained on are left out" if seen else ""
        left_out += "".join(f" ({overlap.note})" for overlap in overlaps if overlap.note)
        left_out += "".join(f"; {overlap.remade}" for overlap in overlaps if overlap.remade)
        over = "" if not unseen else f" over {self.day_count} days" if self.day_count else ", without a time,"
        reason = f"{unseen:,} of {total:,} holdout rows{over} are compared{left_out}"
        if unseen < self.rule.min_rows:
            reason += f"; {self.rule.min_rows:,} are asked for (gate.min_rows)"
        return _CheckResult(unseen >= self.rule.min_rows, reason, unseen)

    def within_limit(self, metric: str, limit: float, *, is_floor: bool) -> _CheckResult:
        own, cost = self.predictions("challenger"), self.case.cost
        of_rows = metrics.score(self.case.task, self.label, own, cost=cost, weights=self.weights)
        scores = {**self.case.facts, **of_rows}
        if metric not in scores:
            raise LookupError(f"there is no {metric} of these rows{did_you_mean(metric, list(scores))}")
        value = _rounded(scores[metric])
        asked = f"at least {limit:g} is asked" if is_floor else f"at most {limit:g} is allowed"
        return _CheckResult(value >= limit if is_floor else value <= limit, f"{metric} is {value:.4g}, {asked}", value)

    def differences(self, side: Side) -> tuple[float, float, Floats]:
        """The mean difference of the loss, the level of it, and the difference in each resample."""
        if not KINDS[self.case.task].has_loss_by_row:
            own, other = self.predictions("challenger"), self.predictions(side)
            drawn = {"resamples": self.resamples, "seed": self.seed}
            gained = metrics.precision_differences(self.label, own, other, self.blocks, **drawn)
            return float(gained[0]), 1.0, gained[1:]
        reference = self.loss(side)
        difference = self.loss("challenger") - reference
        return self.mean(difference), _finite(self.mean(reference)), self.resampled(difference)

    def against(self, side: Side) -> tuple[float, tuple[float, float], str]:
        """The mean difference of the loss, its interval, and both in words."""
        difference, level, samples = self.differences(side)
        mean = _rounded(difference, level)
        low, high = metrics.interval(samples, self.rule.confidence)
        interval = (_rounded(low, level), _rounded(high, level))  # what is recorded decides
        words = f"{loss_words(self.loss_name)} {_differs(mean)} the {side}'s "
        words += f"({self.rule.confidence:.0%} interval {span(interval)})"
        return mean, interval, words

    def beats_baseline(self) -> _CheckResult:
        """Beyond doubt better than answering without looking at a feature."""
        if self.few_anomalies:
            return _CheckResult(True, f"{NOT_JUDGED}{self.few_anomalies}")
        mean, interval, words = self.against("baseline")
        return _CheckResult(interval[1] < 0, words, mean, interval=interval)

    def improvement(self) -> _CheckResult:
        """The rule of params.yaml: better, or not worse than an old champion by more than the margin."""
        if self.case.champion is None:
            return _CheckResult(True, NO_CHAMPION)
        if self.few_anomalies:
            return self.replaces_an_old_one()
        mean, interval, words = self.against("champion")
        if self.rule.rule == "better":
            words += "" if interval[1] < 0 else "; it is not better" if mean >= 0 else "; that may be chance"
            return _CheckResult(interval[1] < 0, words, mean, interval=interval)
        age, limit = self.case.champion_age, self.rule.margin
        if age is None:
            raise ValueError("the champion's age is not known")
        close, old = interval[1] <= limit, age >= self.rule.champion_age
        words += "" if close else f"; worse by more than {limit:g} cannot be ruled out"
        words += f"; the champion is {many(age, 'partition')} old, {self.rule.champion_age} are asked"
        return _CheckResult(close and old, words, mean, interval=interval)

    def coverage(self) -> _CheckResult:
        """As many labels as is meant lie within the intervals of a forecast, or chance could be why not."""
        drawn = {"resamples": self.resamples, "seed": self.seed}
        value, *samples = metrics.coverage(self.label, self.predictions("challenger"), self.blocks, **drawn)
        ends = metrics.interval(np.array(samples), self.rule.confidence)
        low, high = self.rule.coverage
        words = f"{value:.1%} of the labels lie within the intervals ({ends[0]:.1%} to {ends[1]:.1%}), 80% are meant"
        return _CheckResult(ends[1] >= low and ends[0] <= high, f"{words}, {low:.0%} to {high:.0%} allowed", value)

    # anomalies

    @cached_property
    def few_anomalies(self) -> str:
        """Why the labels of an anomaly model's rows do not say how good it is; empty where they do."""
        if self.case.task != "anomaly":
            return ""
        label = self.rows["label"]
        labelled, anomalies = int(label.notna().sum()), int((label == 1).sum())
        days = len(np.unique(self.days[label.to_numpy() == 1]))
        if anomalies >= FEWEST_ANOMALIES and labelled > anomalies and days >= FEWEST_DAYS:
            return ""
        return (
            f"{labelled:,} of {len(label):,} rows have a label, and {anomalies:,} of these are anomalies on {days} "
            f"days; {FEWEST_ANOMALIES} on {FEWEST_DAYS} days are needed, and rows that are none"
        )

    def replaces_an_old_one(self) -> _CheckResult:
        """Where nothing says which of two anomaly models is better, the newer one replaces one that has become old."""
        age, limit = self.case.champion_age, self.rule.champion_age
        if age is None:
            raise ValueError("the champion's age is not known")
        old = f"the champion is {many(age, 'partition')} old, {limit} are asked"
        words = f"not judged by labels: {self.few_anomalies}; {old}"
        return _CheckResult(age >= limit, words)

    def agreement(self) -> _CheckResult:
        """Without labels: it ranks the rows much as the champion does."""
        if self.case.champion is None:
            return _CheckResult(True, NO_CHAMPION)
        scores = (self.predictions(side)["anomaly_score"].to_numpy() for side in ("challenger", "champion"))
        value = metrics.rank_agreement(*scores)
        words = f"its scores rank the rows as the champion's do by {value:.3g} (1: alike)"
        if not self.few_anomalies:
            return _CheckResult(True, f"{words}; the labels decide", value)
        return _CheckResult(value >= self.rule.agreement, f"{words}, at least {self.rule.agreement:g} is asked", value)

    def output_questions(self) -> Iterator[Question]:
        """Of several labels none is worse beyond the margin of slices: the mean over them could hide it."""
        columns = answer_columns.labels(self.case.holdout.columns)
        outputs = [output for column in columns if (output := answer_columns.split(column)[0])]
        for output in outputs:
            yield f"output:{output}", self.rule.slice_margin, partial(self.output_difference, output, len(outputs))

    def output_difference(self, output: str, outputs: int) -> _CheckResult:
        """One of so many labels, judged as a slice of all rows is."""
        if self.case.champion is None:
            return _CheckResult(True, NO_CHAMPION)
        label = self.rows[answer_columns.column(output, "label")]
        both = (metrics.of_output(self.predictions(side), output) for side in SIDES)
        own, champion = (metrics.losses(self.loss_name, label, answers) for answers in both)
        return self.difference_within_margin(own, champion, np.ones(len(own), dtype=bool), outputs)

    def slice_questions(self) -> Iterator[Question]:
        """No slice of enough rows is worse beyond its margin.

        A slice is refused when its mean difference exceeds `slice_margin` by more than the doubt there is about it, and
        doubt counts for at most DOUBT_MARGINS margins:

            mean > margin + min(q · standard error, DOUBT_MARGINS · margin)

        The standard error comes from resampling the slice's days; q is the one-sided quantile of Student's t (as many
        degrees of freedom as days, less one) at (1 − confidence) / number of slices. That is Bonferroni's correction:
        over all slices together, noise between two equally good models blocks in at most 1 − confidence of the cases,
        and far less often with a margin. (Holm's procedure would give the same verdict: both refuse when the smallest
        p-value is below that level.) Without the cap, a slice of few or unequal days could be arbitrarily bad and
        still be excused by its wide interval; with it, one worse by 1 + DOUBT_MARGINS margins is always refused. With a
        margin of 0 there is nothing to measure the cap by: there only the interval decides.
        """
        large: list[tuple[str, Flags]] = []
        for column in self.case.slices:
            try:
                slices = self.large_slices(column)
            except DATA_REASONS:
                slices = []
            if not slices:
                yield f"slice:{column}", None, partial(self.no_large_slice, column)
            large += slices
        for name, members in large:
            yield name, self.rule.slice_margin, partial(self.slice_difference, members, len(large))

    def large_slices(self, column: str) -> list[tuple[str, Flags]]:
        """The slices of a column that have enough rows: the check's name, and which rows are in it."""
        if column not in self.rows:
            raise LookupError(f"the holdout has no column {column}")
        keys = metrics.slice_names(self.rows[column])
        counts = (keys if self.weights is None else keys[self.weights > 0]).value_counts()
        large = sorted(counts.index[counts >= self.rule.slice_min_rows], key=_natural)
        return [(f"slice:{column}={value}", (keys == value).to_numpy(dtype=bool)) for value in large]

    def no_large_slice(self, column: str) -> _CheckResult:
        self.large_slices(column)  # raises why there is none, if it cannot be had
        return _CheckResult(
            True, f"no value of {column} has {self.rule.slice_min_rows:,} rows: none is judged by itself"
        )

    def slice_difference(self, members: Flags, slices: int) -> _CheckResult:
        """One of so many slices, judged by the rule that `slice_questions` states."""
        if self.case.champion is None:
            return _CheckResult(True, NO_CHAMPION)
        return self.difference_within_margin(self.loss("challenger"), self.loss("champion"), members, slices)

    def difference_within_margin(self, own: Floats, champion: Floats, members: Flags, slices: int) -> _CheckResult:
        """Whether a loss is within the margin of the champion's, on some rows: one of so many such questions."""
        from scipy.special import stdtrit  # scipy.stats takes half a second to import

        reference, blocks = champion[members], self.blocks[members]
        difference = own[members] - reference
        mean = _rounded(self.mean(difference, members), _finite(self.mean(reference, members)))
        margin, days = self.rule.slice_margin, len(np.unique(blocks))
        doubt, interval = DOUBT_MARGINS * margin, None
        if days > 1:
            quantile = float(stdtrit(days - 1, 1 - (1 - self.rule.confidence) / slices))
            error = quantile * float(self.resampled(difference, members).std(ddof=1))
            doubt = min(error, doubt) if margin else error
            interval = (mean - error, mean + error)
        limit = _rounded(margin + doubt)
        words = f"{self.loss_name} {_differs(mean)} the champion's, margin {margin:g} and {doubt:.3g} for doubt; "
        words += f"{int(members.sum()):,} rows, {days} {'days' if self.by_day else 'groups of rows'}"
        return _CheckResult(mean <= limit, words, mean, limit, interval)

    def fairness_gap(self, asked: params.Fairness) -> _CheckResult:
        """No two groups of a column are treated more differently than is allowed, beyond doubt."""
        if asked.column not in self.rows:
            raise LookupError(f"the holdout has no column {asked.column}")
        own = self.predictions("challenger")
        losses = self.loss("challenger") if asked.metric == "loss" else None
        sample = fairness.Sample(self.label, own, losses, self.blocks, self.weights)
        groups = metrics.slice_names(self.rows[asked.column])
        gap = fairness.gap(asked, groups, sample, self.rule, (self.resamples, self.seed))
        return _CheckResult(gap.passed, gap.reason, gap.value, interval=gap.interval)

    def calibration(self) -> _CheckResult:
        own, limit = self.predictions("challenger"), self.rule.calibration or 0.0
        value = _finite(metrics.calibration_error(self.case.task, self.label, own, self.weights))
        return _CheckResult(value <= limit, f"the calibration error is {value:.3g}, {limit:g} is allowed", value)


def _at_most(value: float | None, limit: float, words: str) -> _CheckResult:
    if value is None:
        raise ValueError("it was not measured")
    return _CheckResult(_finite(value) <= limit, words.format(value, limit), value)


def _schema(case: Comparison) -> _CheckResult:
    """Every request that the champion accepts is accepted."""
    if case.champion is None:
        return _CheckResult(True, NO_CHAMPION)
    for side, contender in case.contenders.items():
        if not contender.features:
            raise ValueError(f"the request schema of the {side} is not known{_because(contender.fault)}")
    narrowed = refused_requests(case.champion.features or {}, case.challenger.features or {})
    words = "; ".join(narrowed) or "every request that the champion accepts is accepted"
    return _CheckResult(not narrowed, words, float(len(narrowed)))


def refused_requests(champion: Features, challenger: Features) -> list[str]:
    """Why the challenger would refuse a request that the champion accepts: a sentence per field, or none."""
    reasons = [f"{name} is gone: a request with it would be refused" for name in champion if name not in challenger]
    for name, new in challenger.items():
        if name not in champion:
            if not new.get("nullable", False):
                reasons.append(f"{name} is new and required")
            continue
        old = champion[name]
        if new["type"] != old["type"]:
            reasons.append(f"{name} was {old['type']}, is {new['type']}")
        if old.get("nullable", False) and not new.get("nullable", False):
            reasons.append(f"{name} may no longer be missing")
        if old.get("length") != new.get("length"):
            reasons.append(f"{name}: length was {old.get('length')}, is {new.get('length')}")
        for bound in ("min", "max", "max_length"):
            before, now = _limit(old, bound), _limit(new, bound)
            if now is None or old["type"] != new["type"]:
                continue
            if before is None or (now > before if bound == "min" else now < before):
                reasons.append(f"{name}: {bound} was {'free' if before is None else _shown(before)}, is {_shown(now)}")
    return reasons


def _limit(feature: Mapping[str, Any], bound: str) -> Any:
    """A number, or a time as text: of times as ISO 8601 writes them, the later one is the greater text."""
    limit = feature.get(bound)
    if bound == "max_length" and feature["type"] == "text":
        return limit or request_schema.LONGEST_TEXT
    return limit.replace(" ", "T").upper() if isinstance(limit, str) else limit


def _shown(limit: Any) -> str:
    return limit if isinstance(limit, str) else f"{limit:g}"


def distances(task: str, before: pd.DataFrame, after: pd.DataFrame) -> Floats:
    """How far the answers of each row lie apart, as `Moves` defines it; an unknown class has the probability 0.

    Of several labels it is the mean over them.
    """
    outputs = {answer_columns.split(str(name))[0] for name in metrics.predictions_of(before)}
    if outputs - {""}:
        both = [[metrics.of_output(side, output) for side in (before, after)] for output in sorted(outputs)]
        return np.asarray(np.mean([distances(task, *of_output) for of_output in both], axis=0), dtype=np.float64)
    if task != "classification":
        column = "anomaly_score" if task == "anomaly" else "prediction"
        difference = after[column].to_numpy() - before[column].to_numpy()
        return np.abs(np.asarray(difference, dtype=np.float64))
    classes = sorted(name for name in {*before, *after} if name.startswith("p_"))
    old, new = (side.reindex(columns=classes, fill_value=0.0).to_numpy(dtype=np.float64) for side in (before, after))
    return np.asarray(np.abs(new - old).sum(axis=1) / 2, dtype=np.float64)


# ── numbers and words ─────────────────────────────────────────────────────────────────────────────


def _finite(value: Any) -> float:
    number = float(value)
    if not np.isfinite(number):
        raise ValueError(f"the value is {number}")
    return number


def _rounded(value: Any, of: float = 0.0) -> float:
    return numbers.short(_finite(value), of)


def _natural(text: str) -> tuple[int, float, str]:
    """9 before 10, numbers before words."""
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)


def _differs(mean: float) -> str:
    return f"is {abs(mean):.4g} {'below' if mean < 0 else 'above'}" if mean else "equals"


def _without(features: Mapping[str, list[str]]) -> str:
    named = [f"{name} is missing throughout in {listed(of, 3, 'partition')}" for name, of in sorted(features.items())]
    return "; ".join(named)


def _summary(case: Comparison, checks: list[Check]) -> str:
    failed = [check for check in worst_first(checks) if not check.passed]
    against = f"champion {case.champion.candidate}" if case.champion else NO_CHAMPION
    opening = f"{case.model}: challenger {case.challenger.candidate} ({against})"
    if not failed:
        asked = next(c for c in checks if c.name == ("improvement" if case.champion else "beats_baseline"))
        return f"{opening} promoted: all {len(checks)} checks passed; {asked.reason}"
    named = "; ".join(f"{check.name}: {check.reason}" for check in failed[:3])
    more = f"; and {', '.join(check.name for check in failed[3:])}" if failed[3:] else ""
    return f"{opening} refused by {len(failed)} of {len(checks)} checks: {named}{more}"


def _because(fault: str) -> str:
    return f": {fault}" if fault else ""


def describe_error(error: Exception) -> str:
    """An error on one line."""
    text = f"{error.args[0]!s} is missing" if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
