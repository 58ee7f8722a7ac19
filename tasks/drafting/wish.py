"""Wish of a person for a model of a table, and why a table cannot fulfil it; told before anything long runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tasks.ground import params
from tasks.ground.errors import Mistake, did_you_mean
from tasks.ground.task_kinds import KINDS, OF_SEVERAL

if TYPE_CHECKING:
    from tasks.drafting.source import TableSource
    from tasks.drafting.survey import ColumnFacts, Survey

FEWEST_LABELS = 20
MOST_CLASSES = 20
MOST_CATEGORIES = 200
"""Of a label."""


@dataclass(frozen=True)
class Wish:
    """What a person has asked for."""

    name: str
    label: str | None = None
    """What is predicted; of an anomaly model what is found out later, if anything is."""
    time: str | None = None
    task: str | None = None
    by: str | None = None
    key: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    """Columns that stay features, whatever they smell of."""
    weight: str | None = None
    """The column that says how often a row counts."""
    cost: tuple[float, float] | None = None
    """Of a false positive and of a false negative."""
    further: tuple[str, ...] = ()
    """More labels of the same row."""
    series: tuple[str, ...] = ()
    """Columns that tell the series of a forecast apart."""
    horizon: int | None = None
    """How many steps ahead a forecast is asked."""

    @property
    def asked_task(self) -> str | None:
        """The task that was named, or that an option is of alone."""
        return self.task or ("forecast" if self.series or self.horizon else None)

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns that are predicted."""
        return (self.label, *self.further) if self.label else ()


def check_columns(wish: Wish, source: TableSource) -> None:
    """Refuse a wish for columns that a table does not have, before the table is read.

    Raises:
        Mistake: a column is none of the table, or nothing is said to be predicted.
    """
    if wish.task not in {None, *KINDS}:
        raise Mistake(f"--task {wish.task}: there is no such task{did_you_mean(str(wish.task), list(KINDS))}")
    if not wish.labels and wish.asked_task != "anomaly":
        shown = ", ".join(source.columns[:8]) + (", …" if len(source.columns) > 8 else "")
        raise Mistake(
            f"what is to be predicted? `--label COLUMN` names it; the columns are {shown}. Where nothing is to be "
            f"predicted and strange rows are to be found: `--task anomaly`"
        )
    for option, names in (
        ("label", wish.labels),
        ("time", (wish.time,)),
        ("weight", (wish.weight,)),
        ("id", wish.key),
        ("keep", wish.keep),
        ("series", wish.series),
    ):
        _refuse_unknown(option, [name for name in names if name], source)
    _refuse_labels(wish)
    _refuse_options(wish)


def _refuse_unknown(option: str, names: list[str], source: TableSource) -> None:
    for name in names:
        if name not in source.columns:
            first = ""
            if source.first_row:
                shown = [f"{column}={cell}" for column, cell in zip(source.columns, source.first_row, strict=False)]
                first = f". The file has no line of names; its first row is {', '.join(shown[:5])}, …"
            raise Mistake(
                f"--{option} {name}: there is no such column{did_you_mean(name, list(source.columns))}{first}"
            )


def _refuse_options(wish: Wish) -> None:
    """Refuse what another task is for."""
    of_forecast = "--series" if wish.series else "--horizon" if wish.horizon else ""
    if of_forecast and wish.asked_task != "forecast":
        raise Mistake(f"{of_forecast} is for --task forecast, not {wish.asked_task}")
    if wish.asked_task == "forecast" and not wish.time:
        raise Mistake("a forecast is of a time: `--time COLUMN` says of which")
    if wish.asked_task in {None, *OF_SEVERAL}:
        return
    if wish.further:
        raise Mistake(
            f"--task {wish.asked_task} has one label, and there are {', '.join(wish.labels)}: add a model for each"
        )
    if wish.cost or wish.weight:
        option = "--cost" if wish.cost else "--weight"
        raise Mistake(f"{option} is for {' and '.join(OF_SEVERAL)}, not --task {wish.asked_task}")


def _refuse_labels(wish: Wish) -> None:
    if len(set(wish.labels)) < len(wish.labels):
        raise Mistake(f"--label names a column twice: {', '.join(wish.labels)}")
    for name in wish.labels if wish.further else ():
        if name in params.RESERVED or name in wish.keep:
            raise Mistake(
                f"--label {name}: of several labels none can be called so, or be kept as a feature: rename it"
            )
    if wish.further and wish.cost:
        raise Mistake("--cost is of a decision between two classes, and several labels are several decisions")


def task_of(wish: Wish, survey: Survey) -> str:
    """The task of each label, which must be one.

    Raises:
        Mistake: a label cannot be predicted, or one is a class and another one a number.
    """
    if wish.asked_task == "anomaly":
        if wish.label:
            _refuse_mark(survey.columns[wish.label])
        return "anomaly"
    tasks = {label: _task(replace(wish, label=label), survey) for label in wish.labels}
    if len(set(tasks.values())) > 1:
        each = ", ".join(f"{label} is for {task}" for label, task in tasks.items())
        raise Mistake(f"several labels of a model are of one task, and {each}: add a model for each, or say --task")
    return tasks[wish.labels[0]]


def _refuse_mark(column: ColumnFacts) -> None:
    """Refuse a label that does not say of rows whether they are anomalies."""
    if column.counts is None or len(column.counts) > 2:
        count = "more than 1,000" if column.counts is None else len(column.counts)
        raise Mistake(
            f"--label {column.name} has {count} different values; of an anomaly model it says what was found out "
            f"later: 1 is an anomaly, 0 is none, missing is not known. Leave it out, or have such a column made"
        )


def _task(wish: Wish, survey: Survey) -> str:
    """The task that a label asks for, or that was wished for, if the label can be that."""
    assert wish.label is not None
    column, values = survey.columns[wish.label], survey.sample[wish.label].dropna()
    labelled = column.rows - column.missing
    if labelled < FEWEST_LABELS:
        raise Mistake(
            f"--label {wish.label} is filled in {labelled} of {column.rows:,} rows: {FEWEST_LABELS} are needed"
        )
    if column.share_missing > 0.9:
        raise Mistake(
            f"--label {wish.label} is missing in {column.share_missing:.0%} of the rows. Rows without a label teach "
            f"nothing: is it another column, or is it still to come? Give the rows that have it"
        )
    if column.counts is not None and len(column.counts) == 1:
        raise Mistake(
            f"--label {wish.label} is {next(iter(column.counts))!r} in every row: there is nothing to predict"
        )
    few = column.counts is not None and len(column.counts) <= min(MOST_CLASSES, max(2, labelled // 20))
    few = few and not _are_counts(column)
    is_whole = column.kind != "number" or bool((values % 1 == 0).all())
    usual = "classification" if column.kind in {"text", "truth"} or (few and is_whole) else "regression"
    if column.kind == "time":
        raise Mistake(f"--label {wish.label} is a time: predict how long something takes, as a column of numbers")
    if wish.asked_task in {"regression", "forecast"} and column.kind in {"text", "truth"}:
        raise Mistake(f"--task {wish.asked_task}: {wish.label} is {column.kind}, as {values.iloc[0]!r}, and no number")
    many = column.counts is None or len(column.counts) > max(2, min(MOST_CATEGORIES, labelled // 5))
    if (wish.asked_task or usual) == "classification" and (many or not is_whole):
        count = "more than 1,000" if column.counts is None else len(column.counts)
        raise Mistake(
            f"--label {wish.label} has {count} different values in {labelled:,} rows: too many classes. A number is "
            f"`--task regression`; texts are to be put into groups first"
        )
    return wish.asked_task or usual


def check_weight_and_cost(wish: Wish, survey: Survey, task: str) -> None:
    """Refuse a weight that counts nothing, and costs of what is no decision between two classes.

    Raises:
        Mistake: says which, and what to do.
    """
    _refuse_weight(wish, survey)
    _refuse_cost(wish, survey, task)


def _refuse_weight(wish: Wish, survey: Survey) -> None:
    column = survey.columns.get(wish.weight or "")
    if column and (column.kind not in {"integer", "number"} or column.missing or column.low < 0):
        raise Mistake(f"--weight {column.name}: a row counts 0 times or more: a number that is there in every row")


def _refuse_cost(wish: Wish, survey: Survey, task: str) -> None:
    classes = list(survey.columns[wish.labels[0]].counts or ()) if wish.labels else []
    if wish.cost and (task != "classification" or len(classes) != 2):
        raise Mistake(
            f"--cost is of a decision between two classes; {wish.label} has {len(classes) or 'more'} ({task}). Have a "
            f"column of two classes made of it, or leave --cost out"
        )


def _are_counts(column: ColumnFacts) -> bool:
    """Whether whole numbers say how many rather than which: some are so rare that nobody would make a class of them."""
    rarest = min((column.counts or {"": 0}).values())
    is_rare = rarest < min(FEWEST_LABELS, 0.02 * (column.rows - column.missing))
    return column.kind in {"integer", "number"} and len(column.counts or ()) > 2 and is_rare
