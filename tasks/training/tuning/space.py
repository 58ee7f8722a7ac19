"""Search space: which estimators params.yaml asks to try, and whether each of them can be made.

A point is what the sampler draws: `class`, where there are several, and a value per axis of that class. Its estimator
is made as params.yaml would hold it, so that what was tried is what an accepted proposal trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tasks.ground import files, params
from tasks.ground.errors import ModelCodeError, ParamsError, did_you_mean
from tasks.modelling import user_code

if TYPE_CHECKING:
    import pandas as pd

Point = dict[str, Any]

CLASS = "class"
"""The axis that chooses among several classes."""


@dataclass(frozen=True)
class Axis:
    """A hyper-parameter of one class, and what is tried of it."""

    name: str
    """In tables and pictures: `C`; with the class before it where there are several."""
    key: str
    """Below estimator.params; a dot reaches into a mapping."""
    searched: params.Searched


@dataclass(frozen=True)
class Space:
    """What may be drawn; `base` is the estimator that params.yaml names now."""

    base: params.Estimator
    axes: Mapping[str, tuple[Axis, ...]]
    """Dotted class → its axes."""

    @staticmethod
    def of(model: params.Model, tune: params.Tune) -> Space:
        """The space that params.yaml describes."""
        base = model.estimator
        spaces = ({base.class_: tune.space} if tune.space else {}) | tune.classes
        short = {path: path.rpartition(".")[2] for path in spaces}
        if len(set(short.values())) < len(short):
            short = {path: path for path in spaces}
        axes = {
            path: tuple(
                Axis(key if len(spaces) == 1 else f"{short[path]}.{key}", key, searched)
                for key, searched in sorted(space.items())
            )
            for path, space in spaces.items()
        }
        return Space(base, axes)

    def estimator(self, point: Point) -> params.Estimator:
        """The estimator of a point.

        Raises:
            ParamsError: params.yaml could not hold it.
        """
        path = point.get(CLASS, next(iter(self.axes)))
        own: dict[str, Any] = dict(self.base.params) if path == self.base.class_ else {}
        for axis in self.axes[path]:
            _put(own, axis.key.split("."), point[axis.name])
        written = {**self.base.model_dump(by_alias=True, exclude_unset=True), CLASS: path, "params": own}
        try:
            return params.Estimator.model_validate(written)
        except ValidationError as error:
            problem = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ParamsError(f"params.yaml: tune: {path} with {own} cannot be tried: {problem}") from None

    def point_of_base(self) -> Point | None:
        """Where the present parameters lie, those that are left to the estimator too; None: outside the space."""
        if self.base.class_ not in self.axes:
            return None
        present = {**user_code.make_estimator(self.base).get_params(deep=False), **self.base.params}
        point: Point = {CLASS: self.base.class_} if len(self.axes) > 1 else {}
        for axis in self.axes[self.base.class_]:
            value: Any = present
            for part in axis.key.split("."):
                value = value.get(part, _NOWHERE) if isinstance(value, dict) else _NOWHERE
            if value is _NOWHERE or not _is_within(value, axis.searched):
                return None
            point[axis.name] = value
        return point


_NOWHERE = object()


def _put(own: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set a value below nested mappings, of which none is changed in place."""
    first, *rest = parts
    if not rest:
        own[first] = value
        return
    below = own.get(first)
    own[first] = dict(below) if isinstance(below, dict) else {}
    _put(own[first], rest, value)


def _is_within(value: Any, searched: params.Searched) -> bool:
    if searched.choices is not None:
        return value in searched.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    assert searched.low is not None
    assert searched.high is not None
    steps = (value - searched.low) / searched.step if searched.step else 0
    return searched.low <= value <= searched.high and abs(steps - round(steps)) < 1e-9


# ── looked at before anything is tried ────────────────────────────────────────────────────────────


def check(space: Space, name: str, model: params.Model, learn: pd.DataFrame) -> None:
    """Refuse a space of which a part can never be fitted: on few rows, at its ends and with each choice.

    Raises:
        ParamsError: a key that the estimator does not have, or a value that params.yaml cannot hold.
        ModelCodeError: there is no such class, or it refuses a value.
    """
    from tasks.training import estimator_checks

    rows = estimator_checks.few(learn, model.task)
    for path in space.axes:
        _refuse_unknown_keys(space, path, name)
        for corner in _corners(space, path):
            tried = model.model_copy(update={"estimator": space.estimator(corner)})
            try:
                _try(name, tried, learn if rows is None else rows, weighted="weight" in learn)
            except ModelCodeError as error:
                what = f"params.yaml: models.{name}.tune: {path} with {tried.estimator.params} cannot be tried"
                raise ModelCodeError(f"{what}: {error}") from None


def _try(name: str, tried: params.Model, rows: pd.DataFrame, *, weighted: bool) -> None:
    from tasks.training import estimator_checks, train

    pipeline = user_code.build_pipeline(name, tried)
    if tried.task != "anomaly":
        estimator_checks.refuse_before_fit(pipeline, name, tried, weighted=weighted)
        estimator_checks.try_on(rows, name, tried, pipeline, train.faults())


def _refuse_unknown_keys(space: Space, path: str, name: str) -> None:
    estimator = user_code.make_estimator(space.base.model_copy(update={"class_": path, "params": {}}))
    takes = signature(type(estimator)).parameters
    takes_any = any(each.kind is Parameter.VAR_KEYWORD for each in takes.values())
    possible = sorted({*estimator.get_params(deep=False), *takes} - {"kwargs"})
    where = "tune.space" if path == space.base.class_ else f"tune.classes.{path}"
    for axis in space.axes[path]:
        first, _, below = axis.key.partition(".")
        # what an estimator takes besides its signature, its family knows (families.problem); not what is a slip
        is_slip = not takes_any or bool(get_close_matches(first, possible, 1, cutoff=0.85))
        if first not in possible and is_slip:
            raise ParamsError(
                f"params.yaml: models.{name}.{where}.{axis.key}: {path} has no parameter {first!r}"
                f"{did_you_mean(first, possible)}"
            )
        own = space.base.params.get(first) if path == space.base.class_ else None
        if below and own is not None and not isinstance(own, dict):
            raise ParamsError(
                f"params.yaml: models.{name}.{where}.{axis.key}: estimator.params.{first} is {own!r}, no mapping to "
                f"reach into"
            )


def _corners(space: Space, path: str) -> Iterator[Point]:
    """The lower ends, the upper ends, and each choice at least once."""
    lengths = [len(axis.searched.choices or ()) for axis in space.axes[path]]
    for number in range(max(2, *lengths, 2)):
        point: Point = {CLASS: path}
        for axis in space.axes[path]:
            choices, ends = axis.searched.choices, (axis.searched.low, axis.searched.high)
            point[axis.name] = choices[number % len(choices)] if choices else ends[number % 2]
        yield point


def digest(estimator: params.Estimator) -> str:
    """The identity of an estimator: points that are fitted alike have the same."""
    return files.digest(estimator.model_dump(mode="json", by_alias=True))[:16]


def in_words(estimator: params.Estimator) -> str:
    """As params.yaml has it, on one line."""
    return f"{estimator.class_} {estimator.params}"
