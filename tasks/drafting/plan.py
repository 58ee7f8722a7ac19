"""Plan of a model, made of what a table says of itself: its task, features, split, estimator and limits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.drafting import blocks, outlook, suspects, times
from tasks.drafting.blocks import ColumnBlock
from tasks.drafting.outlook import Outlook
from tasks.drafting.suspects import Suspicion
from tasks.drafting.wish import MOST_CLASSES, Wish, check_weight_and_cost, task_of
from tasks.ground import params
from tasks.ground.errors import Mistake, did_you_mean
from tasks.runtime import answer_columns, request_schema

if TYPE_CHECKING:
    import pandas as pd

    from tasks.drafting.cutting import Cut
    from tasks.drafting.survey import ColumnFacts, Survey

MOST_VALUES = 200
"""A text column with more different values is no category."""

OF_CLASSES = ("classification", "anomaly")
"""Tasks whose label is one of few."""

FEW_ROWS = 2000
"""Below it, a linear model is less often wrong than trees are."""


@dataclass
class ModelPlan:
    """What will be written."""

    wish: Wish
    survey: Survey
    task: str
    form: times.TimeForm | None
    by: str
    key: list[str]
    features: list[str]
    """Columns of the table that the model learns from."""
    left_out: list[Suspicion]
    personal: list[Suspicion] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    holdout: float = 0.25
    """Partitions, where `split_by` is time; else the share."""
    split_by: str = "random"
    holdout_rows: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    blocks: list[ColumnBlock] = field(default_factory=list)
    """Columns that are one vector each."""
    outlook: Outlook | None = None
    """Of a forecast."""

    @property
    def needed_outlook(self) -> Outlook:
        """Of a plan that is one of a forecast."""
        assert self.outlook
        return self.outlook

    @property
    def past(self) -> dict[str, str]:
        """Of a forecast: feature → the column of which it is the value when the forecast is asked."""
        horizon = self.needed_outlook.horizon
        return {f"{feature_name(column)}_lag_{horizon}": column for column in self.needed_outlook.past}

    @property
    def dataset(self) -> str:
        """The table's name."""
        return self.wish.name

    @property
    def is_classification(self) -> bool:
        """Whether the label is a class."""
        return self.task == "classification"

    @property
    def labels(self) -> list[ColumnFacts]:
        """The columns that are predicted."""
        return [self.survey.columns[name] for name in self.wish.labels]

    def values(self, label: str) -> pd.Series[Any]:
        """Those of a label in the sample."""
        return self.survey.sample[label].dropna()

    @property
    def label_words(self) -> str:
        """The labels as a sentence names them."""
        return ", ".join(self.wish.labels)

    @property
    def days(self) -> int:
        """Days that rows of the sample are of, of those that may be evaluated; 0 without a time."""
        if self.form is None:
            return 0
        sample = self.survey.sample
        if self.wish.label and self.task != "anomaly":
            sample = sample[sample[self.wish.label].notna()]
        return int(self.form.parse(sample[self.form.column].dropna()).dt.normalize().nunique())

    @property
    def code_of_anomaly(self) -> str:
        """How rows say by the label that a row is an anomaly: 1, 0 or missing; empty without a label."""
        if not self.wish.label:
            return ""
        column = f"table[{self.wish.label!r}]"
        if (column_ := self.labels[0]).kind != "text" and {*(column_.counts or ())} <= {0, 1}:
            return f'{column}.astype("Int64")'
        return f'({column} == {self.anomaly!r}).astype("Int64").where({column}.notna())'

    @property
    def anomaly(self) -> Any:
        """The value of a label that says that a row is an anomaly: 1 or true, or of two others the rarer one."""
        counts: dict[Any, int] = self.labels[0].counts or {}
        return 1 if {*counts} <= {0, 1} else min(counts, key=lambda value: counts[value])

    @property
    def calendar(self) -> list[str]:
        """Parts of the time that are features too, where the table has no column of that name."""
        if self.form is None:
            return []
        at = self.form.parse(self.survey.sample[self.form.column].dropna())
        days = at.dt.normalize()
        useful = {"hour": len(at.dt.hour.unique()) > 1, "weekday": days.nunique() > 14 and bool((at.dt.day != 1).any())}
        useful["month"] = at.dt.month.nunique() == 12
        taken = {column.lower() for column in self.survey.columns}
        return [part for part, is_useful in useful.items() if is_useful and part not in taken]

    @property
    def spans(self) -> dict[str, str]:
        """Feature → the column of times that it says the days since; only where rows have a time to count to."""
        return {f"days since {feature_name(n)}": n for n in self.features if self.survey.columns[n].kind == "time"}

    @property
    def own_features(self) -> list[str]:
        """The columns that are features as they are."""
        return [name for name in self.features if name not in self.spans.values()]

    def calendar_code(self, time: str) -> dict[str, str]:
        """Part of the time → how rows make it of one."""
        code = {"hour": f"{time}.dt.hour", "weekday": f"{time}.dt.day_of_week + 1", "month": f"{time}.dt.month"}
        return {part: code[part] for part in self.calendar}

    @property
    def renamed(self) -> dict[str, str]:
        """Columns whose names no feature can have → another name; `time` too, where rows have none."""
        names = [*self.own_features, *(["time"] if self.form is None and "time" in self.survey.columns else [])]
        return {name: new for name in names if (new := feature_name(name)) != name}

    @property
    def texts(self) -> list[str]:
        """The features that are free text."""
        return [name for name in self.features if feature_type(self.survey.columns[name]) == "text"]

    @property
    def is_linear(self) -> bool:
        """Whether there are too few rows for trees, or too many columns, or words to count."""
        return self.survey.rows < max(FEW_ROWS, 2 * len(self.survey.columns)) or bool(self.texts)


def make(wish: Wish, survey: Survey) -> ModelPlan:
    """The plan, but for the partitions.

    Raises:
        Mistake: the label, the time or an id is no column, or cannot be what it is said to be.
    """
    for name in wish.keep:
        survey.columns[name].is_kept_as_text = _unfit(survey.columns[name], survey).startswith("has ")
    task = task_of(wish, survey)
    check_weight_and_cost(wish, survey, task)
    form = None if wish.time is None else times.form_of(survey, wish.time)
    if form and (task == "forecast" or (wish.asked_task is None and task == "regression")):
        is_forecast = task == "forecast" or (len(wish.labels) == 1 and outlook.is_plain(wish, survey, form))
        if is_forecast:
            return _forecast(wish, survey, form)
    by = _by(wish, survey, form)
    ids = [n for n in suspects.identifiers(survey) if n not in {*wish.labels, wish.time, wish.weight, *wish.keep}]
    left_out = suspects.of_identifiers(survey, ids, wish.label, classes=task in OF_CLASSES)
    left_out += [Suspicion(name, "is the key (--id)") for name in wish.key if name not in {*ids, *wish.keep}]
    own = [*wish.labels, wish.time, wish.weight, *ids, *wish.key]
    vectors = blocks.of(survey, [*own, *wish.keep])
    inside = {column for block in vectors for column in block.columns}
    rest = [n for n in survey.columns if n not in {*own, *inside} or n in wish.keep]
    _refuse_too_many([name for name in rest if not _unfit(survey.columns[name], survey)], vectors)
    of_each = [
        suspects.of_label(survey, rest, label, classes=task in OF_CLASSES, time=wish.time) for label in wish.labels
    ]
    leaks = list({leak.column: leak for each in reversed(of_each) for leak in each}.values())
    left_out += [leak for leak in leaks if leak.column not in wish.keep]
    out = {suspicion.column for suspicion in left_out}
    left_out += suspects.groups(survey, [name for name in rest if name not in out | {*wish.keep}], MOST_VALUES)
    out = {suspicion.column for suspicion in left_out}
    left_out += [
        Suspicion(name, why)
        for name in rest
        if name not in out and (why := _unfit(survey.columns[name], survey, task, form))
    ]
    features = [name for name in rest if name not in {suspicion.column for suspicion in left_out}]
    plan = ModelPlan(wish, survey, task, form, by, list(wish.key) or ids[:1], features, left_out, blocks=vectors)
    _refuse_clashes(plan)
    words = "which no contract knows: have its parts written as columns"
    plan.left_out += [Suspicion(name, f"is {type_}, {words}") for name, type_ in survey.source.nested.items()]
    plan.personal = suspects.personal(survey, features)
    plan.notes += [*survey.source.notes, *_notes(plan)]
    nothing = not features and not vectors and not plan.calendar
    if nothing and len(leaks) == 1:
        raise Mistake(
            f"the only column there is to learn from, {leaks[0].column}, smells of a leak: {leaks[0].why} "
            f"`--keep {leaks[0].column}` takes it all the same"
        )
    if nothing:
        raise Mistake(
            f"no column is left to learn from: {'; '.join(f'{s.column}: {s.why}' for s in left_out[:5])}. "
            f"`--keep COLUMN` takes one all the same"
        )
    return plan


def _forecast(wish: Wish, survey: Survey, form: times.TimeForm) -> ModelPlan:
    """A plan whose features are known before a row's time: the calendar, the past, and which series it is."""
    seen = outlook.find(wish, survey, form)
    by = _by(wish, survey, form) if wish.by else seen.unit(form.parse(survey.sample[form.column]))
    if by not in times.UNITS:
        raise Mistake(f"--partition-by {by}: a forecast looks back in time: one of {', '.join(times.UNITS)}")
    key = [form.column, *seen.series]
    plan = ModelPlan(wish, survey, "forecast", form, by, key, list(seen.series), [], outlook=seen)
    used = {*wish.labels, *key, *seen.past}
    why = "is no number that was known before a row's time"
    plan.left_out = [Suspicion(name, why) for name in survey.columns if name not in used]
    if taken := {*plan.past, *seen.lags, seen.mean} & {*survey.columns}:
        raise Mistake(f"column {min(taken)!r} is called as a lag of a forecast will be: rename it")
    _refuse_clashes(plan)
    plan.notes += [*survey.source.notes, *_notes(plan)]
    return plan


def split(plan: ModelPlan, cut: Cut) -> None:
    """Choose the holdout, now that the partitions are known."""
    waiting = [] if plan.task == "anomaly" else cut.without_label
    plan.rows = {name: rows for name, rows in sorted(cut.rows.items()) if name not in waiting}
    labelled = plan.rows if plan.task == "anomaly" else {name: cut.labelled[name] for name in plan.rows}
    if waiting:
        plan.notes.append(
            f"{len(waiting)} partitions, {waiting[0]} to {waiting[-1]}, have no {plan.wish.label} in any row: they are "
            f"left out. Deliver them when it is known"
        )
    if cut.without_time:
        plan.notes.append(f"{cut.without_time:,} rows have no time: they are in no partition")
    total, days = sum(labelled.values()), plan.days
    if plan.by in times.UNITS and len(plan.rows) >= 2 and days >= 10:
        taken = rows = 0
        for count in reversed(labelled.values()):
            enough = rows >= 0.2 * total and days * rows / total >= 6
            if enough or taken == len(plan.rows) - 1:
                break
            taken, rows = taken + 1, rows + count
        if days * rows / total >= 6 and rows < 0.6 * total:
            plan.split_by, plan.holdout, plan.holdout_rows = "time", taken, rows
            return
    if plan.task == "forecast":
        raise Mistake(
            f"{len(plan.rows)} partitions by {plan.by} are too few to hold the newest out and learn from the others: "
            f"`--partition-by` takes a finer unit; or give more rows"
        )
    if plan.form is not None:
        plan.notes.append("too few days for a holdout of the newest ones: rows are held out at random")
    plan.holdout, plan.holdout_rows = (0.25 if total < 50_000 else 0.1), int(total * (0.25 if total < 50_000 else 0.1))


def feature_name(column: str) -> str:
    """A name that a feature can have, as near as may be to the column's own."""
    name = " ".join(column.split()).lstrip("_")[:100] or "unnamed"
    if name in params.RESERVED or answer_columns.is_prediction(name):
        name = f"{name.replace('p_', 'p-', 1)}_" if not name.startswith("p_") else f"of_{name}"
    return name


def feature_type(column: ColumnFacts) -> str:
    """What type of feature a column gives."""
    if column.kind == "truth":
        return "boolean"
    if column.kind == "text":
        return "text" if _is_free_text(column) or column.is_kept_as_text else "category"
    if column.kind == "time":
        return "datetime"
    if column.kind == "integer" and suspects.GROUP.search(column.name):
        return "category"
    return "integer" if column.kind == "integer" else "number"


def _refuse_too_many(columns: list[str], vectors: list[ColumnBlock]) -> None:
    count = len(columns) + len(vectors)
    if count > params.MOST_FEATURES:
        raise Mistake(
            f"the table gives {count:,} features, and each is checked, watched and explained: {params.MOST_FEATURES:,} "
            f"are allowed. Numbers of one kind are one feature where their columns are numbered and filled in every "
            f"row: name them x_0, x_1, x_2, …; or sum them up (counts, means, first components)"
        )


def _refuse_clashes(plan: ModelPlan) -> None:
    """Two columns cannot be one feature, nor may a new name be another column's."""
    of = dict.fromkeys(plan.calendar, plan.wish.time or "")
    others = set(plan.survey.columns) - set(plan.renamed)
    for column in plan.features:
        name = feature_name(column)
        other = of.get(name, name if column in plan.renamed and name in others else None)
        if other is not None:
            raise Mistake(
                f"the columns {other!r} and {column!r} would both be called {name!r} among the features: rename one"
            )
        of[name] = column


def _by(wish: Wish, survey: Survey, form: times.TimeForm | None) -> str:
    units = ("file", "rows", *times.UNITS)
    if wish.by is not None and wish.by not in units:
        raise Mistake(f"--partition-by {wish.by}: no such way{did_you_mean(wish.by, list(units))}")
    if wish.by in times.UNITS and form is None:
        raise Mistake(f"--partition-by {wish.by} needs `--time COLUMN`: which column says when a row was seen?")
    if wish.by:
        return wish.by
    if form is not None:
        return times.usual_unit(form.parse(survey.sample[form.column]))
    return "file" if len(survey.source.paths) > 1 else "rows"


def _unfit(column: ColumnFacts, survey: Survey, task: str = "", form: Any = None) -> str:
    """Why a column cannot be a feature; empty where it can."""
    if column.is_constant:
        return "holds the same in every row"
    if column.kind == "time" and form is None:
        return "is a time: with `--time COLUMN` it would be the days from it to then"
    if column.kind == "text":
        if feature_type(column) == "text":
            return "is free text, of which no detector of anomalies makes numbers" if task == "anomaly" else ""
        if column.longest > request_schema.LONGEST:
            return "has texts that are too long for a category"
        if column.counts is None or len(column.counts) > MOST_VALUES or len(column.counts) > 0.5 * survey.rows:
            count = "more than 1,000" if column.counts is None else f"{len(column.counts):,}"
            return f"has {count} different texts, too many for a category: `--keep` takes it as a text, by its words"
    return ""


def _is_free_text(column: ColumnFacts) -> bool:
    if column.counts is not None and len(column.counts) <= MOST_VALUES:
        return column.longest > request_schema.LONGEST
    some = list(column.counts or {})[:200]
    return column.longest > 60 and (not some or sum(text.count(" ") for text in some) > 3 * len(some))


def _notes(plan: ModelPlan) -> list[str]:
    notes: list[str] = []
    if plan.outlook:
        notes += _notes_of_forecast(plan)
    elif plan.wish.task is None:
        what = "classes" if plan.is_classification else "a number"
        counts = plan.labels[0].counts or ()
        if not plan.is_classification and len(plan.labels) == 1 and len(counts) in range(1, MOST_CLASSES + 1):
            what = f"a count, as some of its {len(counts)} values are rare"
        verb, what = (
            ("are", f"{what.removeprefix('a ')}s") if plan.wish.further and what == "a number" else ("is", what)
        )
        notes.append(f"{plan.label_words} {verb} taken for {what}: task {plan.task} (--task says otherwise)")
    for label in plan.labels:
        if label.missing:
            notes.append(f"{label.name} is missing in {label.missing:,} rows: these are left out")
        if plan.is_classification and label.counts:
            rare = [(value, n) for value, n in label.counts.items() if n < 20]
            of = f" of {label.name}" if plan.wish.further else ""
            notes += [
                f"class {value}{of} has {n} row{'s'[: n > 1]} only: nothing certain can be said of it"
                for value, n in rare[:5]
            ]
    if _may_differ(plan.survey) and (share := suspects.duplicates(plan.survey)) > 0.001:
        notes.append(
            f"{share:.1%} of the rows stand there twice, word for word: where one is learned from and its twin is held "
            f"out, the figures are too good"
        )
    for name, code in suspects.codes_for_missing(plan.survey, plan.features):
        nulls = f'`nulls: ["{code}", "{code}.0"]`'
        notes.append(
            f"{name} is {code} in some rows, and else never below 0: a code for «missing»? {nulls} in its suite says so"
        )
    if plan.form is not None and plan.form.how == "time":
        notes.append(f"times of {plan.form.column} are taken for UTC: `timezone` in params.yaml says another zone")
    return [*notes, *([] if plan.form else _notes_without_time(plan.survey))]


def _notes_of_forecast(plan: ModelPlan) -> Iterator[str]:
    seen, label = plan.needed_outlook, plan.label_words
    if plan.wish.asked_task is None:
        yield f"{label} is forecast, as the table says nothing else than when (`--task regression` says otherwise)"
    series = f", of each {' and '.join(seen.series)}" if seen.series else ""
    season = f"what happens again after {seen.season} steps" if seen.season > 1 else "no season is seen"
    yield f"{label} is asked {seen.words} before{series}; {season} (--horizon and --series say otherwise)"
    if seen.past:
        yield f"of {', '.join(seen.past[:5])}{', …' if seen.past[5:] else ''} the model knows what was known then"


def _notes_without_time(survey: Survey) -> Iterator[str]:
    yield "without --time, rows are held out at random, and drift is not seen day by day"
    if times_ := [name for name, column in survey.columns.items() if column.kind == "time"]:
        are = "are times" if times_[1:] else "is a time"
        words = f"{' and '.join(times_[:3])} {are}: where one says when a row was seen"
        yield f"{words}, `--time {times_[0]}` holds out the newest rows"


def _may_differ(survey: Survey) -> bool:
    """Whether its columns have values enough for every row to be another: else rows that are alike mean nothing."""
    counts = [MOST_VALUES * 5 if c.counts is None else max(1, len(c.counts)) for c in survey.columns.values()]
    return math.prod(counts) > 20 * survey.rows


def tidy(value: float, *, up: bool = False) -> float:
    """A number with two digits, for a person to read."""
    if value == 0 or not math.isfinite(value):
        return 0.0
    scale = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return round((math.ceil if up else math.floor)(value / scale) * scale, 12)
