"""What a model answers, typed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
"""A row: a value per feature."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one row."""

    id: str
    """The prediction's name in the router's log."""
    prediction: Any
    """The class that is decided for, or the value; of several labels, each by its name."""
    probability: float | None = None
    """Of the second of two classes."""
    probabilities: dict[str, Any] = field(default_factory=dict)
    """Of each class, by its text; of several labels, of the classes of each by its name."""
    low: float | None = None
    high: float | None = None
    """The ends of an interval, where the model gives one."""
    unseen: tuple[str, ...] = ()
    """Features whose category the model never saw."""
    more: dict[str, Any] = field(default_factory=dict)
    """Whatever else the model answers."""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Prediction:
        """As the router has it."""
        known = {name: answer[name] for name in cls.__dataclass_fields__ if name in answer and name != "more"}
        known["unseen"] = tuple(known.get("unseen") or ())
        return cls(**known, more={name: value for name, value in answer.items() if name not in known})


@dataclass(frozen=True)
class Answer(Sequence[Prediction]):
    """The answers to rows, in their order."""

    model: str
    version: str
    """Of the release that answered; of many requests, that of the first."""
    predictions: tuple[Prediction, ...]
    versions: tuple[str, ...] = ()
    """All that answered: several while a canary runs, or where a release changed between two requests."""

    def __len__(self) -> int:
        return len(self.predictions)

    def __getitem__(self, place: Any) -> Any:
        return self.predictions[place]


@dataclass(frozen=True)
class Contribution:
    """How far a feature moved an answer from the usual one."""

    feature: str
    value: Any
    contribution: float
    error: float | None = None


@dataclass(frozen=True)
class Explanation:
    """Why a row is answered as it is."""

    of: str
    """What is explained."""
    base: float
    """The usual answer."""
    value: float
    """The answer to this row."""
    contributions: tuple[Contribution, ...]
    """The features, those that moved it most first."""
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_answer(cls, answer: Mapping[str, Any]) -> Explanation:
        """As the router has it."""
        names = Contribution.__dataclass_fields__
        parts = tuple(Contribution(**{k: v for k, v in each.items() if k in names}) for each in answer["contributions"])
        own = ("of", "base", "value")
        more = {name: value for name, value in answer.items() if name not in (*own, "contributions")}
        return cls(answer["of"], answer["base"], answer["value"], parts, more)


def plain_rows(rows: Any) -> list[dict[str, Any]]:
    """Rows as JSON has them: of mappings, or of a DataFrame; a missing value (None, NaN, NA, NaT) is null."""
    records: Iterable[Row] = rows.to_dict("records") if hasattr(rows, "to_dict") and hasattr(rows, "columns") else rows
    return [{str(name): _plain(value) for name, value in row.items()} for row in records]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if hasattr(value, "isoformat"):
        return None if type(value).__name__ == "NaTType" else value.isoformat()
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    try:
        number = float(value)
    except (TypeError, ValueError):  # such as pandas' NA
        return None if type(value).__name__ in ("NAType", "NaTType") else str(value)
    return number if math.isfinite(number) else None if math.isnan(number) else str(number)
