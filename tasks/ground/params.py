"""params.yaml, typed and frozen. Read once, at the door; a step takes the section that it needs."""

from __future__ import annotations

import unicodedata
from collections import Counter
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tasks.ground import settings, yaml_reader
from tasks.ground.errors import NoModel, ParamsError, did_you_mean
from tasks.ground.task_kinds import KINDS, OF_SEVERAL, Task
from tasks.runtime import answer_columns, feature_types, request_schema

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Share = Annotated[float, Field(gt=0, lt=1)]

TAKEN = {"keys": "var/serving/keys.json", "reports": "the page /reports", "platform": "var/journal/platform.jsonl"}
"""Names that no model can have → what has them."""


def _is_free(name: str) -> str:
    if name in TAKEN:
        raise ValueError(f"a model cannot be called {name!r}: {TAKEN[name]} is there already")
    return name


ModelName = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9_]*[a-z0-9])?$", max_length=63), AfterValidator(_is_free)]
"""A name that a Bento can have too."""


def _as_dvc_compares(value: Any) -> Any:
    """DVC does not tell 1.0 from 1, so code must not either: whole numbers are integers, however they were written."""
    if isinstance(value, dict):
        return {_as_dvc_compares(key): _as_dvc_compares(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_dvc_compares(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _by_pattern(features: Any) -> Any:
    """`pixel_{0..783}: {…}` is 784 features of one group, as a shell's braces are that many words."""
    if not isinstance(features, dict):
        return features
    expanded: dict[Any, Any] = {}
    for key, feature in features.items():
        names = list(yaml_reader.braces(key)) if isinstance(key, str) else [key]
        is_group = len(names) > 1 and isinstance(feature, dict)
        for name in names:
            if name in expanded:
                raise ValueError(f"{name!r} is named twice, once by {key!r}")
            expanded[name] = {"group": key, **feature} if is_group else feature
    return expanded


def _by_name(features: dict[str, Any]) -> dict[str, Any]:
    """DVC does not see the order of keys, so it must not reach a result: columns are in the order of their names."""
    return dict(sorted(features.items()))


def _is_plain_name(name: str) -> str:
    """Any text that reads the same in JSON, in a table's head and in a sentence."""
    problem = None
    if name != name.strip() or not all(map(str.isprintable, name)):
        problem = "begins or ends with a blank, or holds what cannot be seen"
    elif name.startswith("_"):
        problem = "begins with _"
    elif name != (composed := unicodedata.normalize("NFC", name)):
        problem = f"is written with accents that stand alone (Unicode NFD); write {composed!r} (NFC)"
    if problem:
        raise ValueError(f"a feature cannot be called {name!r}: it {problem}. Let models/<name>/rows give another name")
    return name


FeatureName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_is_plain_name)]
"""In any script, with blanks, dots, capitals and brackets: `Torque [Nm]`, `温度`."""


def _is_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones
        hint = did_you_mean(name, sorted(available_timezones())).partition("; known")[0]  # there are 600
        raise ValueError(f"{name!r} is no time zone{hint}; one of the IANA names, as Europe/Berlin") from None
    return name


Zone = Annotated[str, AfterValidator(_is_zone)]
"""A time zone by its IANA name."""

Values = Annotated[dict[str, Any], AfterValidator(_as_dvc_compares)]
"""Whatever a person's own code takes."""

NO_MODEL = "there is no model yet: `evergreen add-model NAME --from FILE --label COLUMN` makes one of your data"

RESERVED = {"label", "time", "id", "weight", "json", "model_config", "model_post_init"}
"""Columns that models/<name>/rows gives beside the features; a row of a batch as a client posts it; pydantic's own."""

MOST_FEATURES = 2_000
"""Of a model: with ten thousand a release takes ten seconds to load, and as many summaries are read every time."""

_OF_LOSS_BY_ROW = ("measured_loss", "estimated_loss")
"""Conditions of a retrain policy that take one."""

_OF_ONE_TYPE = ("max_length", "log", "length", "timezone", "group")
"""Keys of a feature that most have no use for."""

NAIVE = ("seasonal_naive", "seasonal_error")
"""Columns of a forecast's evaluation: what the season before says, and how far it is off in training."""

OWN_COLUMNS = (*answer_columns.COLUMNS, *answer_columns.OTHERS, *NAIVE)
"""What no label may be called beside RESERVED."""


class Section(BaseModel):
    """A part of params.yaml: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Feature(Section):
    """One column of a request, of a training row and of the reference profile."""

    type: Literal["category", "integer", "number", "boolean", "datetime", "text", "vector"]
    about: str
    unit: str | None = None
    example: bool | float | str | list[float] | None
    min: float | str | None = None
    max: float | str | None = None
    nullable: bool = False
    max_length: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Characters of a text."""
    log: Literal["whole", "hash"] | None = None
    """Of a text: what the prediction log keeps of it; None is the whole text."""
    length: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Of a vector: how many numbers."""
    timezone: Zone | None = None
    """Of a datetime: the zone of its local times; UTC where none is named."""
    group: str | None = None
    """Features of one group are explained together."""

    @model_validator(mode="after")
    def _consistent(self) -> Feature:
        if self.example is None and not self.nullable:
            raise ValueError("example is null, but the feature is not nullable")
        if problem := self._problem_of_limits() or self._problem_of_example():
            raise ValueError(problem)
        return self

    def _problem_of_limits(self) -> str | None:
        what = f"a{'n' if self.type == 'integer' else ''} {self.type}"
        limits = [limit for limit in (self.min, self.max) if limit is not None]
        if limits and self.type in ("category", "boolean", "text"):
            return f"{what} has no min or max"
        if strange := [limit for limit in limits if isinstance(limit, str) != (self.type == "datetime")]:
            return f"min or max {strange[0]!r} is no limit of {what}"
        if self.type == "datetime" and (wrong := next(filter(None, map(_problem_of_time, limits)), None)):
            return f"min or max {wrong}"
        if len(limits) == 2 and _comparable(limits[0]) > _comparable(limits[1]):
            return f"min {_shown(limits[0])} is above max {_shown(limits[1])}"
        return self._problem_of_lengths(what)

    def _problem_of_lengths(self, what: str) -> str | None:
        of_one_type = {"max_length": "text", "log": "text", "length": "vector", "timezone": "datetime"}
        for key, of in of_one_type.items():
            if getattr(self, key) is not None and self.type != of:
                return f"{what} has no {key}"
        needs_length = self.type == "vector" and self.length is None
        return "a vector needs its length: how many numbers it has" if needs_length else None

    def _problem_of_example(self) -> str | None:
        example = self.example
        if example is None:
            return None
        if type(example) not in _EXAMPLES.get(self.type, (str,)):
            return f"example {example!r} is no {self.type}"
        if self.type == "datetime" and (problem := _problem_of_time(example)):
            return f"example {problem}"
        if self.type in ("category", "text"):
            least, most = request_schema.limits(self.model_dump()).get("min_length", 0), self._longest
            if not least <= len(str(example)) <= most:
                return f"example has {len(str(example))} characters; a {self.type} has {least} to {most}"
        if isinstance(example, list) and len(example) != self.length:
            return f"example has {len(example)} numbers, its length is {self.length} (one number stands for all)"
        values = example if isinstance(example, list) else [example]
        wrong = [value for value in values if isinstance(value, float | str) and not self._takes(value)]
        return f"example {_shown(wrong[0])} is no {self.type} from min to max" if wrong else None

    @property
    def _longest(self) -> int:
        return int(request_schema.limits(self.model_dump())["max_length"])

    def _takes(self, value: Any) -> bool:
        if self.type in ("category", "text"):
            return True
        whole = self.type != "integer" or (value.is_integer() and abs(value) <= request_schema.EXACT)
        low, high = self.min, self.max
        is_above = low is None or _comparable(value) >= _comparable(low)
        return bool(whole and is_above and (high is None or _comparable(value) <= _comparable(high)))


_EXAMPLES: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (float,),
    "number": (float,),
    "vector": (float, list),
}


def _comparable(value: Any) -> Any:
    return datetime.fromisoformat(value.upper()) if isinstance(value, str) else value


def _problem_of_time(value: Any) -> str | None:
    """What is wrong with a time of params.yaml, which stands in local time."""
    try:
        feature_types.local_time(value, "UTC")
    except ValueError as error:
        return f"{value!r} {error}"
    return "has an offset; write it in local time" if str(value)[19:].strip(".0123456789") else None


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


class Reading(BaseModel):
    """Which partitions of a dataset rows are made of: `partition`, `{history: N}`, `static` or `all`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    how: Literal["partition", "history", "static", "all"]
    last: PositiveInt = 1
    """So many partitions, the newest of them the rows' own, of a history."""

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, written: Any, info: ValidationInfo) -> Any:
        if info.mode == "json":  # its own dump, for another process
            return written
        if written in ("partition", "static", "all"):
            return {"how": written}
        if isinstance(written, dict) and list(written) == ["history"]:
            last = _as_dvc_compares(written["history"])
            if isinstance(last, int) and not isinstance(last, bool) and last > 0:
                return {"how": "history", "last": last}
            raise ValueError(f"history: {last!r} is no number of partitions, 1 or more")
        raise ValueError(f"{written!r} is no way to read a dataset; write partition, {{history: N}}, static or all")

    @property
    def needs_own(self) -> bool:
        """Whether rows wait until the dataset has the partition of their name."""
        return self.how in ("partition", "history")

    @property
    def is_ordered(self) -> bool:
        """Whether the names of its partitions must say which is later."""
        return self.how in ("history", "all")


class AskedTask(BaseModel):
    """What a model does: `regression`, or, of several labels, `{regression: [a, b]}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Task
    labels: list[str] = []
    """Of several: the columns of the rows, in the order in which an estimator of several gets them."""

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, written: Any) -> Any:
        if isinstance(written, str):
            if written not in KINDS:
                _no_task(written)
            return {"kind": written}
        if isinstance(written, dict) and len(written) == 1:
            ((kind, labels),) = written.items()
            if kind in OF_SEVERAL and isinstance(labels, list):
                return {"kind": kind, "labels": labels}
            if kind in KINDS and isinstance(labels, list):
                raise ValueError(f"task: {kind} has one label: of several, {' or '.join(OF_SEVERAL)}, or a model each")
        return written if isinstance(written, dict) and "kind" in written else _no_task(written)

    @model_validator(mode="after")
    def _names_several(self) -> AskedTask:
        if len(self.labels) == 1 or len({*self.labels}) < len(self.labels):
            raise ValueError(f"{self.labels} are not several labels: name two or more, each once")
        for name in self.labels:
            if {*":/"} & {*name} or name.startswith("p_") or name in {*RESERVED, *OWN_COLUMNS}:
                raise ValueError(
                    f"a label cannot be called {name!r}: that is a column of the platform's own, or holds : or /. Let "
                    f"models/<name>/rows give another name"
                )
            _is_plain_name(name)
        return self


def _no_task(written: Any) -> Any:
    raise ValueError(
        f"{written!r} is no task; write one of {', '.join(KINDS)}, or of several labels "
        f"{{{OF_SEVERAL[1]}: [one, other]}}"
    )


class Cost(Section):
    """What an error of a decision costs, in any unit; a decision that is right costs nothing."""

    false_positive: NonNegativeFloat
    false_negative: NonNegativeFloat

    @model_validator(mode="after")
    def _costs_something(self) -> Cost:
        if not self.false_positive + self.false_negative:
            raise ValueError("errors that cost nothing give no reason to decide one way: give one of them a cost")
        return self

    @property
    def loss(self) -> str:
        """The loss of tasks.modelling.metrics that counts it."""
        costs = (repr(cost).removesuffix(".0") for cost in (self.false_positive, self.false_negative))
        return f"cost({', '.join(costs)})"


class DecisionRule(Section):
    """From which probability on the second of two classes is decided for: as given, or as chosen on training folds."""

    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    maximise: Literal["f1", "balanced_accuracy"] | None = None
    cost: Cost | None = None

    @model_validator(mode="after")
    def _says_how(self) -> DecisionRule:
        if self.threshold is not None and self.maximise:
            raise ValueError("threshold and maximise are two ways to decide: give one of them")
        if self.threshold is None and not self.maximise and not self.cost:
            raise ValueError("give a threshold, or what it is chosen by: cost, or maximise")
        return self


class Estimator(Section):
    """Which estimator, with which hyper-parameters. `class` is a dotted path, of any package that is installed."""

    class_: Annotated[str, Field(alias="class", pattern=r"^[A-Za-z_]\w*(\.\w+)+$")]
    params: Values = {}
    seed: int = 0
    alerts_per_day: PositiveFloat | None = None
    """Of an anomaly model: its threshold is set so that it raises so many; without it, the estimator's own counts."""
    decision: DecisionRule | None = None

    @field_validator("params", mode="before")
    @classmethod
    def _unmistakable(cls, params: Any) -> Any:
        """`max_features: 1.0` is all of them to scikit-learn, `1` is one, and DVC sees no difference."""
        if isinstance(params, dict):
            for key, value in params.items():
                if str(key).startswith("max_") and isinstance(value, float) and value == 1:
                    raise ValueError(f"{key}: write null for all of them, or 1 for one: DVC does not tell 1.0 from 1")
        return params


class Forecast(Section):
    """What a forecast is asked: so many steps ahead, of which series; and what its baseline is."""

    horizon: PositiveInt
    season: PositiveInt
    """In steps."""
    step: Annotated[str, Field(pattern=r"^([1-9]\d*(min|h|D)|month)$")]
    """As 15min, 1h, 7D, month."""
    series: list[str] = []
    """Features that together name a series; none: there is one."""
    known_ahead: list[str] = []
    """Datasets whose rows are known before their time: a plan, a calendar, a weather forecast."""


class Split(Section):
    """Which rows are the holdout: the newest partitions (time), or a share drawn by the row's id (random)."""

    by: Literal["time", "random"]
    holdout: PositiveFloat
    look_ahead: Literal["refuse", "allow"] = "refuse"
    """What becomes of rows that use what was not known yet, where the split is by time."""
    forecast: Forecast | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Split:
        if self.by == "random" and self.holdout >= 1:
            raise ValueError("holdout is a share below 1 when the split is random")
        if self.by == "time" and self.holdout != int(self.holdout):
            raise ValueError("holdout is a whole number of partitions when the split is by time")
        return self


class Evaluate(Section):
    """How a candidate is scored on its holdout."""

    slices: list[str] = []
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 1000


class Fairness(Section):
    """How far a metric may differ between the groups of a column: the largest less the smallest, beyond doubt."""

    column: str
    metric: Literal["selection_rate", "recall", "precision", "false_positive_rate", "accuracy", "loss"]
    at_most: NonNegativeFloat


class Gate(Section):
    """When a challenger may take the champion's place. Losses: lower is better."""

    rule: Literal["better", "not_worse"]
    loss: Literal["log_loss", "brier", "cost", "absolute", "squared", "poisson", "average_precision"]
    margin: NonNegativeFloat
    champion_age: NonNegativeInt
    confidence: Share = 0.95
    min_rows: PositiveInt
    floors: dict[str, float] = {}
    ceilings: dict[str, float] = {}
    slice_min_rows: PositiveInt = 1
    slice_margin: NonNegativeFloat = 0
    fairness: list[Fairness] = []
    calibration: PositiveFloat | None = None
    coverage: Annotated[list[Share], Field(min_length=2, max_length=2)] = [0.7, 0.9]
    """Of a forecast: how many labels of ten lie within its intervals, at least and at most; eight are meant."""
    agreement: Annotated[float, Field(ge=-1, le=1)] = 0.5
    """Of an anomaly model without labels: rank correlation with the champion's scores, at least."""
    latency_ms: PositiveFloat
    size_mb: PositiveFloat

    @model_validator(mode="after")
    def _coverage_is_a_span(self) -> Gate:
        if self.coverage[0] >= self.coverage[1]:
            raise ValueError(f"coverage: {self.coverage} is at least and at most: the lower one comes first")
        return self


class When(Section):
    """One line of a retrain policy: every condition that it names must hold. retrain_policy.py asks them."""

    new_rows: PositiveInt | None = None
    new_partitions: PositiveInt | None = None
    growth: PositiveFloat | None = None
    new_share: PositiveFloat | None = None
    revised: PositiveFloat | None = None
    months: PositiveInt | None = None
    age_days: PositiveFloat | None = None
    age_partitions: PositiveInt | None = None
    drift: NonNegativeFloat | None = None
    measured_loss: NonNegativeFloat | None = None
    estimated_loss: NonNegativeFloat | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> When:
        if not self.given():
            raise ValueError("a line without a condition would always hold; name one, or leave the line out")
        return self

    def given(self) -> list[tuple[str, float]]:
        """The conditions that are named, with their limits."""
        return [(name, limit) for name, limit in self.model_dump().items() if limit is not None]


class Searched(Section):
    """The values of a hyper-parameter that are tried: a range, or choices. Ends that are whole numbers: only such."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: Annotated[list[Any], Field(min_length=1)] | None = None

    @field_validator("low", "high", "step", mode="before")
    @classmethod
    def _is_number(cls, value: Any) -> Any:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{value!r} is no number; what is none stands in choices: [a, b]")
        return value

    @model_validator(mode="after")
    def _says_what_is_tried(self) -> Searched:
        if self.choices is None:
            problem = self._problem_of_range()
        elif self.model_fields_set - {"choices"}:
            problem = "choices have no low, high, log or step: give a range or choices"
        else:
            distinct = {repr(_as_dvc_compares(choice)) for choice in self.choices}
            problem = "" if len(distinct) == len(self.choices) else "a choice stands twice (1 and 1.0 are the same)"
        if problem:
            raise ValueError(problem)
        return self

    def _problem_of_range(self) -> str:
        low, high, step = self.low, self.high, self.step
        if low is None or high is None:
            return "give low and high, or choices: [a, b]"
        problems = {
            f"low {low} is above high {high}": low > high,
            f"low and high are both {low}: nothing is searched. Write it into estimator.params": low == high,
            f"log: a logarithm begins above 0, and low is {low}": self.log and low <= 0,
            "log and step exclude each other: leave one out": self.log and step is not None,
            f"step {step} does not fit between {low} and {high}": step is not None and not 0 < step <= high - low,
        }
        return next((problem for problem, is_so in problems.items() if is_so), "")

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers of the range are tried."""
        return all(isinstance(each, int) for each in (self.low, self.high, self.step) if each is not None)


class TuneFolds(Section):
    """How the training rows are divided: each fold is answered by what has learned from others."""

    by: Literal["time", "group", "random"] | None = None
    """None: by time where the split is, else random."""
    count: Annotated[int, Field(ge=2, le=20)] = 4
    column: str | None = None
    """Of groups: rows of one value stay together."""

    @model_validator(mode="after")
    def _groups_have_a_column(self) -> TuneFolds:
        if (self.by == "group") != (self.column is not None):
            raise ValueError("by: group and column belong together: rows of one value of the column stay together")
        return self


class Tune(Section):
    """A search for better hyper-parameters: what is tried, how often, on which folds of the training rows."""

    space: dict[str, Searched] = {}
    """Of `estimator.class`: hyper-parameter (a dotted name reaches into a mapping) → what is tried."""
    classes: dict[str, dict[str, Searched]] = {}
    """Further classes, each with its space."""
    trials: Annotated[int, Field(ge=1, le=10_000)] = 40
    budget_s: PositiveFloat = 600
    """CPU seconds of all fits."""
    folds: TuneFolds = TuneFolds()
    prune: bool = True
    """Whether a trial ends early that is worse than half of the others on the same folds."""
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _searches_something(self) -> Tune:
        if not self.space and not self.classes:
            raise ValueError("space: name a hyper-parameter and its values: {learning_rate: {low: 0.01, high: 0.3}}")
        return self


class Retrain(Section):
    """When to train again: never within `gap_days` of the last training; then one line of `when` is enough."""

    gap_days: NonNegativeFloat = 0
    when: list[When]


class Serving(Section):
    """What is accepted at once, and by how many processes it is answered."""

    max_rows: Annotated[int, Field(ge=1, le=100_000)] = 1000
    max_bytes: Annotated[int, Field(ge=1000)] = 5_000_000
    max_waiting: PositiveInt = 512
    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    timeout_s: PositiveFloat = 30
    log_days: Annotated[int, Field(ge=1, le=36_500)] = 90
    log_gb: PositiveFloat = 20
    log_table: str | None = None


class Rollout(Section):
    """What a release must stand before all requests go to it. tasks/release/rollout/stages.py asks it."""

    start_s: PositiveFloat = 8
    replay: NonNegativeInt = 500
    replay_errors: NonNegativeInt = 0
    latency_ratio: Annotated[float, Field(ge=1)] = 2.0
    latency_ms: PositiveFloat = 50
    unexpected: Annotated[float, Field(ge=0, lt=1)] = 0.05
    moved: PositiveFloat = 0.25
    canary: Share = 0.1
    bake_s: NonNegativeFloat = 20
    canary_errors: NonNegativeInt = 0
    min_requests: PositiveInt = 50


SEVERAL_LABELS = (
    "Where one model shall answer them all, write task: {{{task}: [{labels}]}} in params.yaml, and let "
    "models/<name>/rows give a column for each by its name; else make a model each"
)
"""What to do with several outputs, or tags."""


class Card(Section):
    """What a model's page for people who do not build it says beside what was measured."""

    rows: str = "rows"
    """What a row is, in the plural: flights."""
    positive: str = ""
    """Of two classes, the rows of the second one, in the plural: late flights."""
    audience: str = ""
    not_for: list[str] = []
    """What it must not be used for, a sentence each."""
    owner: str = ""
    """Whom to ask."""


class Model(Section):
    """One model: all that is said of it outside models/<name>/. What dvc.yaml reads has no default, as DVC has none."""

    about: str
    task_: Annotated[AskedTask, Field(alias="task")]
    datasets: Annotated[dict[Name, Reading], Field(min_length=1)]
    options: Values
    timezone: Zone = "UTC"
    """In which the rows' `time` stands: what is logged in UTC is held against them by the days of this zone."""
    features: Annotated[
        dict[FeatureName, Feature], Field(min_length=1), BeforeValidator(_by_pattern), AfterValidator(_by_name)
    ]
    estimator: Estimator
    split: Split
    evaluate: Evaluate
    gate: Gate
    retrain: Retrain = Retrain(when=[When(new_rows=1)])
    rollout: Rollout = Rollout()
    serving: Serving
    card: Card = Card()
    tune: Tune | None = None

    @model_validator(mode="before")
    @classmethod
    def _labels_are_of_the_task(cls, written: Any) -> Any:
        if isinstance(written, dict):
            for key in ("labels", "outputs", "targets"):
                if key in written:
                    names = ", ".join(map(str, written[key])) if isinstance(written[key], list) else "one, other"
                    task = written.get("task") if written.get("task") in OF_SEVERAL else OF_SEVERAL[1]
                    raise ValueError(f"{key}: is no key. {SEVERAL_LABELS.format(task=task, labels=names)}")
        return written

    @property
    def task(self) -> Task:
        """What it does, by its name."""
        return self.task_.kind

    @property
    def labels(self) -> list[str]:
        """The names of several labels; empty where there is one."""
        return self.task_.labels

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if taken := RESERVED & set(self.features):
            raise ValueError(
                f"features: {', '.join(sorted(taken))} is a reserved name. Let models/<name>/rows give it another one"
            )
        if alike := [name for name in self.features if answer_columns.is_own(name)]:
            raise ValueError(
                f"features: {', '.join(alike)}: p_… are the probabilities that a model answers, and "
                f"{', '.join(answer_columns.COLUMNS)} its numbers. Let models/<name>/rows give it another name"
            )
        if known := {*self.labels} & {*self.features, *self.columns, *self.evaluate.slices}:
            raise ValueError(
                f"task: {', '.join(sorted(known))} is a label, and a feature or a slice: what is to be answered is not "
                f"known when it is asked"
            )
        if len(self.features) > MOST_FEATURES:
            raise ValueError(
                f"features: {len(self.features):,} are more than {MOST_FEATURES:,}, each of which is checked, watched "
                f"and described by itself. Numbers of one kind are one feature of the type vector, with their length"
            )
        if twice := [column for column, times in Counter(self.columns).items() if times > 1]:
            raise ValueError(f"features: {twice[0]} is a feature, and a number of a vector: give one another name")
        if self.gate.loss not in (losses := KINDS[self.task].losses):
            raise ValueError(f"gate.loss: {self.gate.loss!r} is not for {self.task}; one of {', '.join(losses)}")
        self._refuse_what_its_task_has_no_use_for()
        if not any(reading.needs_own for reading in self.datasets.values()):
            raise ValueError("datasets: at least one must be read by partition or history: rows are made by partition")
        return self

    def _refuse_what_its_task_has_no_use_for(self) -> None:
        self._refuse_another_forecast()
        if self.task != "anomaly":
            for key in ("slice_min_rows", "slice_margin", "calibration"):
                if getattr(self.gate, key) is None or key not in self.gate.model_fields_set:
                    raise ValueError(f"gate.{key}: is missing")
            if self.estimator.alerts_per_day is not None:
                raise ValueError(f"estimator.alerts_per_day: is for task: anomaly; a {self.task} raises no alerts")
        elif "alert_rate" not in self.gate.ceilings:
            raise ValueError(
                "gate.ceilings: name alert_rate, the largest share of rows that may raise an alert: without labels "
                "a candidate is judged by it"
            )
        elif asked := [key for line in self.retrain.when for key, _ in line.given() if key in _OF_LOSS_BY_ROW]:
            raise ValueError(
                f"retrain.when: {asked[0]}: no row of an anomaly model has a loss by itself: ask for new_rows, drift "
                f"or age_days"
            )

    @model_validator(mode="after")
    def _decides_as_its_task_can(self) -> Model:
        if self.estimator.decision and self.task != "classification":
            raise ValueError(f"estimator.decision: is for task: classification; {self.task} decides for no class")
        if self.estimator.decision and self.labels:
            raise ValueError(
                "estimator.decision: is of one label. Of several, wrap the estimator in models/<name>/pipeline: "
                "FixedThresholdClassifier(estimator, threshold=0.3), as it is fitted for each label"
            )
        if self.gate.loss == "cost" and not self.cost:
            raise ValueError(
                "gate.loss: cost needs what errors cost: estimator: {…, decision: {cost: {false_positive: 1, "
                "false_negative: 10}}}"
            )
        return self

    @model_validator(mode="after")
    def _slices_are_known(self) -> Model:
        taken = {*RESERVED, *NAIVE}
        if reserved := [name for name in self.evaluate.slices if name in taken or answer_columns.is_own(name)]:
            raise ValueError(f"evaluate.slices: {', '.join(reserved)} is a reserved name")
        for name in self.evaluate.slices:
            if (kind := self.features[name].type if name in self.features else "") in ("text", "vector"):
                raise ValueError(
                    f"evaluate.slices: {name!r} is a {kind}, of which each value is another. Let models/<name>/rows "
                    f"make a category of it"
                )
        for asked in self.gate.fairness:
            if asked.column not in self.evaluate.slices:
                hint = did_you_mean(asked.column, self.evaluate.slices)
                raise ValueError(f"gate.fairness: {asked.column!r} is none of evaluate.slices: add it there{hint}")
            if self.task == "anomaly" and asked.metric != "selection_rate":
                raise ValueError(
                    f"gate.fairness: {asked.metric} is of labels; of an anomaly model its alerts can be compared: "
                    f"selection_rate"
                )
            if "slice_min_rows" not in self.gate.model_fields_set:
                raise ValueError("gate.slice_min_rows: is missing: groups with fewer rows are not compared")
            if self.task in ("regression", "forecast") and asked.metric != "loss":
                raise ValueError(f"gate.fairness: {asked.metric} is of decisions; a {self.task} has its loss")
            if self.labels and asked.metric != "loss":
                raise ValueError(f"gate.fairness: {asked.metric} is of one label; of several the loss can be compared")
        return self

    @model_validator(mode="after")
    def _tunes_what_it_has(self) -> Model:
        if self.tune is None:
            return self
        if self.estimator.class_ in self.tune.classes:
            raise ValueError(f"tune.classes: {self.estimator.class_} is estimator.class: its space is tune.space")
        column, columns = self.tune.folds.column, [*self.features, *self.evaluate.slices]
        if column is not None and column not in columns:
            hint = did_you_mean(column, columns)
            raise ValueError(f"tune.folds.column: {column!r} is no feature, and none of evaluate.slices{hint}")
        return self

    @property
    def kept(self) -> list[str]:
        """Columns that rows keep beside the features: evaluations are sliced by them, and no request has them."""
        return [column for column in dict.fromkeys(self.evaluate.slices) if column not in self.features]

    @property
    def cost(self) -> str | None:
        """The loss that counts what errors cost; None where that was not said."""
        decision = self.estimator.decision
        return decision.cost.loss if decision and decision.cost else None

    @property
    def loss(self) -> str:
        """The gate's loss, as tasks.modelling.metrics knows it."""
        return self.cost if self.gate.loss == "cost" and self.cost else self.gate.loss

    def described(self) -> dict[str, dict[str, Any]]:
        """The features as plain values, in order: what a release takes along. Keys of other types are left out."""
        described = {}
        for name, feature in self.features.items():
            keys = feature.model_dump()
            described[name] = {k: v for k, v in keys.items() if v is not None or k not in _OF_ONE_TYPE}
            if feature.type == "datetime":
                described[name]["timezone"] = feature.timezone or "UTC"
        return described

    @property
    def columns(self) -> list[str]:
        """The columns of a table of rows: one per feature, and behind them those of vectors."""
        return feature_types.table_columns(self.described())

    def _refuse_another_forecast(self) -> None:
        asked = self.split.forecast
        if (self.task == "forecast") != (asked is not None):
            todo = "name its horizon, season and step" if asked is None else f"is for task: forecast, not {self.task}"
            raise ValueError(f"split.forecast: {todo}")
        if asked is None:
            return
        if self.split.by != "time":
            raise ValueError("split.by: a forecast is tried on what came later: write time")
        for key, names, possible in (
            ("series", asked.series, self.features),
            ("known_ahead", asked.known_ahead, self.datasets),
        ):
            for name in names:
                if name not in possible:
                    raise ValueError(f"split.forecast.{key}: {name!r} is unknown{did_you_mean(name, list(possible))}")
        if taken := set(NAIVE) & set(self.features):
            raise ValueError(f"features: {', '.join(sorted(taken))} is a column of a forecast's evaluation: rename it")
        if (lead := self.features.get("lead")) and (lead.type, lead.min, lead.max) != ("integer", 1, asked.horizon):
            raise ValueError(f"features.lead: the steps ahead are an integer, min 1, max {asked.horizon} (the horizon)")

    def of_type(self, *types: str) -> list[str]:
        """The names of the features of these types, in order."""
        return [name for name, feature in self.features.items() if feature.type in types]


class Git(Section):
    """Whether flows commit data.dvc and dvc.lock, and where they push. For a worker's own clone or worktree."""

    commit: bool = False
    branch: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w./-]*$")] | None = None
    remote: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")] = "origin"
    promote_uncommitted: bool = False
    """Whether a candidate whose code or parameters are in no commit may become champion without a person's approval."""


class Params(Section):
    """The whole of params.yaml."""

    landing: str
    quarantine: str
    settle_seconds: NonNegativeFloat = 1
    upstream: Annotated[str, Field(pattern=r"^models(\.\w+)+$")] | None = None
    keep_days: Annotated[float, Field(ge=1)] = 90
    """How long state is kept that nobody uses and that can be made again: Bentos, memos, releases brought back, and
    files in MLflow of candidates that never were champion."""
    git: Git = Git()
    models: dict[ModelName, Model]

    def model(self, name: str) -> Model:
        """The section of one model."""
        self.refuse_none()
        if name not in self.models:
            hint = did_you_mean(name, list(self.models))
            raise ParamsError(f"params.yaml: there is no model {name!r} below `models`{hint}")
        return self.models[name]

    def refuse_none(self) -> None:
        """Nothing can be done for models before there is one.

        Raises:
            NoModel: says how the first one is made.
        """
        if not self.models:
            raise NoModel(NO_MODEL)

    def readers(self, dataset: str) -> list[str]:
        """The models that read a dataset."""
        return [name for name, model in self.models.items() if dataset in model.datasets]

    @property
    def datasets(self) -> list[str]:
        """Every dataset that some model reads."""
        return sorted({dataset for model in self.models.values() for dataset in model.datasets})


def load(path: Path | None = None) -> Params:
    """Read and check params.yaml.

    Raises:
        ParamsError: with a line per fault: file, key path, what is wrong, and what may have been meant.
    """
    path = path or settings.ROOT / "params.yaml"
    try:
        text = yaml_reader.text(path, path.name, ParamsError)
    except FileNotFoundError:
        raise ParamsError(
            f"{path} is not there. Are you in the project's folder? (EVERGREEN_ROOT names another)"
        ) from None
    return _parsed(text, path.name)


@lru_cache(maxsize=8)
def _parsed(text: str, name: str) -> Params:
    """What a text holds; kept, as what polls asks every two seconds, and fifty models take 0.3 s to parse."""
    try:
        return Params.model_validate(yaml_reader.parse(text, name, ParamsError, dvc_reads=True))
    except ValidationError as error:
        faults = [f"{name}: {_explain(fault)}" for fault in error.errors()]
        raise ParamsError("\n".join(faults)) from None


def _explain(fault: Any) -> str:
    """One fault as `key.path: what is wrong; did you mean …?`."""
    path = [str(part) for part in fault["loc"] if part != "[key]"]
    where = ".".join(path) or "(top level)"
    if fault["type"] == "extra_forbidden":
        return f"{where}: unknown key{did_you_mean(path[-1], _known_keys(path))}"
    if fault["type"] == "missing":
        return f"{where}: is missing"
    message = fault["msg"].removeprefix("Value error, ").split(" or instance of ")[0]
    given = "" if isinstance(fault["input"], dict | list) else f", not {fault['input']!r}"
    return f"{where}: {message[0].lower() + message[1:]}{given if fault['type'] != 'value_error' else ''}"


def _known_keys(path: list[str]) -> list[str]:
    """The keys that the section holding the last part of `path` knows."""
    section: Any = Params
    parts = iter(path[:-1])
    for part in parts:
        section = _fields(section)[part]
        while inner := get_args(section):
            if get_origin(section) in (dict, list):
                next(parts, None)  # the name that a person chose, or the number of the line
                section = inner[-1]
            else:  # `Section | None`
                section = inner[0]
    return list(_fields(section))


def _fields(section: type[Section]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in section.model_fields.items()}
