"""Texts of a drafted model: its rows, pipeline, expectation suite and test, and its entry in params.yaml.

They are a person's from then on: short, and without anything that must be kept as it is.
"""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Iterator, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from tasks.drafting import forecast_texts, source, suspects, times
from tasks.drafting.blocks import ColumnBlock
from tasks.drafting.plan import ModelPlan, feature_name, feature_type, tidy

if TYPE_CHECKING:
    import pandas as pd

    from tasks.drafting.survey import ColumnFacts, Survey

WIDE = 60
"""With more columns, a suite asks of each only its type and that it is filled."""

STRANGE = 0.01
"""Share of the rows that an anomaly model takes for strange, where nobody has said how many."""

MOST_OF_A_SET = 30
MOST_SLICES = 3


def files(plan: ModelPlan) -> dict[str, str]:
    """Path below models/<name> → text."""
    return {
        "__init__.py": f'"""{_in_docstring(shorten(_sentence(plan), 110, placeholder=" …"))}"""\n',
        "rows/__init__.py": rows(plan),
        "pipeline/__init__.py": pipeline(plan),
        f"expectations/{plan.dataset}.yaml": suite(plan.survey, plan.dataset, plan.key, plan),
    }


def _sentence(plan: ModelPlan) -> str:
    if plan.task == "anomaly":
        return f"Finds strange rows of {plan.dataset}."
    return f"{'Forecasts' if plan.outlook else 'Predicts'} {plan.label_words} of {plan.dataset}."


def _in_docstring(text: str) -> str:
    return " ".join(text.split()).replace("\\", "/").replace('"""', '"')


# ── code ──────────────────────────────────────────────────────────────────────────────────────────


def rows(plan: ModelPlan) -> str:
    """models/<name>/rows/__init__.py."""
    if plan.outlook:
        return forecast_texts.rows(plan)
    needed = [label.name for label in plan.labels if label.missing and plan.task != "anomaly"]
    needed += [plan.form.column] if plan.form and plan.survey.columns[plan.form.column].missing else []
    gaps, empty = [text for text in plan.texts if plan.survey.columns[text].missing], '""'
    body = [f"table = tables[{plan.dataset!r}]"]
    body += [f"table = table.dropna(subset={needed!r})"] if needed else []
    body += _id(plan)
    body += [f"table = table.fillna({{{', '.join(f'{text!r}: {empty}' for text in gaps)}}})"] if gaps else []
    body += plan.form.code() if plan.form else []
    body += [line for block in plan.blocks if not block.is_named_as_vector for line in _as_vector(block)]
    made = [f"{part}={code}" for part, code in plan.calendar_code("time").items()]
    made += [_span(plan, name, column) for name, column in plan.spans.items()]
    made += [f"weight=table[{plan.wish.weight!r}]"] if plan.wish.weight else []
    made += _labels(plan)
    made += [*(["time=time"] if plan.form else []), "id=name"]
    months = f"\nMONTHS = {times.MONTHS!r}\n" if plan.form and plan.form.how == "german" else ""
    partition = "" if plan.key else ", partition: WantedPartition"
    label = "" if plan.wish.further or not plan.wish.label else "`label`, "
    which = "" if plan.task == "anomaly" else " that has a label"
    gives = f"{label}`time` and `id`" if plan.form else f"{label}`id`".replace(", `id`", " and `id`")
    gives = f"`weight`, {gives}" if plan.wish.weight else gives
    return "\n".join(
        [
            f'"""A table of {plan.dataset} → one row per line{which}."""',
            "",
            "from __future__ import annotations",
            "",
            "import pandas as pd",
            *([] if plan.key else ["", "from tasks.tables.partitions import WantedPartition"]),
            months,
            "",
            f"def rows(tables: dict[str, pd.DataFrame]{partition}) -> pd.DataFrame:",
            f'    """The columns of the table, and {gives} of each row.',
            "",
            f"    The model learns from those that stand in params.yaml, below models.{plan.wish.name}.features.",
            '    """',
            *(f"    {line}" for line in body),
            f"    return table{_renaming(plan)}.assign({', '.join(made)})",
            "",
        ]
    )


def _span(plan: ModelPlan, name: str, column: str) -> str:
    """A feature that is the days from a column's time to the row's."""
    local = '.dt.tz_convert("UTC").dt.tz_localize(None)' if "UTC" in plan.survey.columns[column].type else ""
    return f"**{{{name!r}: (time - table[{column!r}]{local}).dt.total_seconds() / 86_400}}"


def _labels(plan: ModelPlan) -> list[str]:
    """One label is called `label`; of several each has its own name, and stands in the table already."""
    if plan.task == "anomaly":
        return [f"label={code}" for code in [plan.code_of_anomaly] if code]
    code = {label.name: f"table[{label.name!r}]" for label in plan.labels}
    whole = [label.name for label in plan.labels if plan.is_classification and label.kind in {"integer", "number"}]
    code |= {name: f'{code[name]}.astype("int64")' for name in whole}
    if not plan.wish.further:
        return [f"label={code[plan.wish.labels[0]]}"]
    bare = [name for name in whole if name.isidentifier() and not keyword.iskeyword(name)]
    made = ", ".join(f"{name!r}: {code[name]}" for name in whole if name not in bare)
    return [*(f"{name}={code[name]}" for name in bare), *([f"**{{{made}}}"] if made else [])]


def _as_vector(block: ColumnBlock) -> Iterator[str]:
    """The columns of a block by the names that those of a vector have."""
    last = block.first + len(block.columns)
    new = f"{block.feature}_{{i - {block.first}}}" if block.first else f"{block.feature}_{{i}}"
    yield f"of_vector = {{f{block.code('i')!r}: f{new!r} for i in range({block.first}, {last})}}"
    yield "table = table.rename(columns=of_vector)"


def _renaming(plan: ModelPlan) -> str:
    return f".rename(columns={plan.renamed!r})" if plan.renamed else ""


def _id(plan: ModelPlan) -> list[str]:
    """What names a row: its key; or else its partition and its place there."""
    if plan.key:
        columns = [f"table[{name!r}].astype(str)" for name in plan.key]
        return ["name = " + ' + "/" + '.join(columns)]
    return [
        'name = partition.name + "/" + (pd.Series(table.index, table.index) + 1).astype(str)  # no column names a row'
    ]


def pipeline(plan: ModelPlan) -> str:
    """models/<name>/pipeline/__init__.py."""
    text = TEXTS if plan.texts else LINEAR if plan.is_linear or plan.task == "anomaly" else TREES
    if not plan.blocks:
        return text
    text = text.replace(") -> Pipeline:", ", vectors: dict[str, list[str]]) -> Pipeline:")
    begin = "    numbers = [*numbers, *(column for columns in vectors.values() for column in columns)]\n"
    return re.sub(r'(\) -> Pipeline:\n    """[^"]*"""\n)', lambda match: match[1] + begin, text)


TREES = '''"""One row of features → what the estimator of params.yaml answers."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from tasks.runtime.ordinal_codes import Codes


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline: trees take categories as numbers, and missing values as they are."""
    return Pipeline([("columns", Codes(categories, numbers)), ("estimator", estimator)])
'''

LINEAR = '''"""One row of features → what the estimator of params.yaml answers."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str]) -> Pipeline:
    """An unfitted pipeline: categories one-hot, numbers filled and scaled, as linear models need them."""
    fill = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    encode = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5)
    columns = ColumnTransformer([("categories", encode, categories), ("numbers", fill, numbers)])
    return Pipeline([("columns", columns), ("estimator", estimator)])
'''


TEXTS = '''"""One row of features → what the estimator of params.yaml answers."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def build(estimator: BaseEstimator, categories: list[str], numbers: list[str], texts: list[str]) -> Pipeline:
    """An unfitted pipeline: words are counted by their hashes (the release holds none), categories one-hot."""
    fill = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    encode = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5)
    words = [(text, HashingVectorizer(n_features=2**14, ngram_range=(1, 2)), text) for text in texts]
    columns = ColumnTransformer([("categories", encode, categories), ("numbers", fill, numbers), *words])
    return Pipeline([("columns", columns), ("estimator", estimator)])
'''


def test(plan: ModelPlan) -> str:
    """A test of its rows, on two lines that are no real ones."""
    if plan.outlook:
        return forecast_texts.test(plan)
    single = _single(plan.survey, plan)
    lines = [f"        {name!r}: {_two(column, name in plan.wish.labels, plan)}," for name, column in single.items()]
    types = [f"        {name!r}: {column.type!r}," for name, column in single.items()]
    for block in plan.blocks:
        span = f"for i in range({block.first}, {block.first + len(block.columns)})"
        lines.append(f"        **{{f{block.code('i')!r}: [0, 1] {span}}},")
        types.append(f"        **{{f{block.code('i')!r}: {block.type!r} {span}}},")
    model, partition = plan.wish.name, "" if plan.key else ', wanted("2024-01")'
    return "\n".join(
        [
            f'"""{model}: from its table to rows."""',
            "",
            "from __future__ import annotations",
            "",
            "import pandas as pd",
            "",
            f"from models.{model}.rows import rows",
            "from tasks.ground import params",
            *([] if plan.key else ["from tasks.tables.partitions import wanted"]),
            "from tasks.training.conformance import conform",
            "",
            "TABLE = pd.DataFrame(",
            "    {",
            *lines,
            "    }",
            ").astype(",
            "    {",
            *types,
            "    }",
            ").copy()  # in one piece: so many columns would be in many" if len(plan.survey.columns) > WIDE else ")",
            '"""Two lines, such as they may arrive; made up."""',
            "",
            "",
            "def test_each_line_is_a_row_that_can_be_learned_from() -> None:",
            '    """With every feature that params.yaml names, and an id of its own."""',
            f"    model = params.load().model({model!r})",
            f"    made = conform(rows({{{plan.dataset!r}: TABLE}}{partition}), {model!r}, model)",
            "    assert len(made) == 2",
            "",
        ]
    )


def _single(survey: Survey, plan: ModelPlan | None) -> dict[str, ColumnFacts]:
    """The columns that are in no block."""
    inside = {column for block in plan.blocks for column in block.columns} if plan else set()
    return {name: column for name, column in survey.columns.items() if name not in inside}


def _two(column: ColumnFacts, is_label: bool, plan: ModelPlan) -> str:
    """Two values of a column, as Python writes them."""
    if column.name == (plan.form and plan.form.column):
        forms = {"year": "[2023, 2024]", "day": "[20240101, 20240102]", "s": "[1704103200, 1704189600]"}
        forms |= {"ms": "[1704103200000, 1704189600000]", "german": '["1. März 2024", "2. Mai 2024"]'}
        return forms.get(plan.form.how, '["2024-01-01 08:00", "2024-01-02 09:00"]') if plan.form else ""
    if column.name in plan.key:
        return '["a", "b"]' if column.kind == "text" else "[1, 2]"
    if column.kind == "time":
        return '["2024-01-01", "2024-01-02"]'
    if column.kind == "truth":
        return "[True, False]"
    if column.kind == "text":
        usual = [value for value, _ in column.counts.most_common(2)] if column.counts else []
        known = usual if is_label or len(column.counts or {}) <= MOST_OF_A_SET else []
        return json.dumps((known * 2 or ["a", "b"])[:2], ensure_ascii=False)
    low = column.low if column.low is not None else 0
    return f"[{_plain(low)}, {_plain(column.high if column.high is not None else 1)}]"


def _plain(value: Any) -> str:
    return repr(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


# ── the expectation suite ─────────────────────────────────────────────────────────────────────────


def suite(survey: Survey, dataset: str, key: Sequence[str] = (), plan: ModelPlan | None = None) -> str:
    """An expectation suite: what every partition so far would pass, with room."""
    lines = [
        f"# What a partition of {dataset} must satisfy before it may be learned from; drafted of {survey.rows:,} rows,"
    ]
    lines += [
        "# with room for what is usual: make it as strict as you know it to be. docs/how-to/add-a-model.md says how."
    ]
    if key:
        lines.append(f"key: [{', '.join(map(quoted, key))}]")
    if list(survey.source.nulls) != [""]:
        lines.append(f"nulls: {json.dumps(list(survey.source.nulls), ensure_ascii=False)}")
    if dialect := source.describe(survey.source.dialect):
        lines.append(f"csv: {json.dumps(dialect, ensure_ascii=False)}")
    if survey.source.nested:
        lines.append("additional: allow  # nested columns, which are left out")
    lines.append("columns:")
    begins = {block.columns[0]: block for block in plan.blocks} if plan else {}
    single = _single(survey, plan)
    for name, column in survey.columns.items():
        if block := begins.get(name):
            lines.append(f"  {quoted(block.pattern)}: {block.type}")
        elif name in single:
            lines.append(f"  {quoted(name)}: {_typed(column)}")
    lines.append("expectations:")
    lines += [f"  - {line}" for line in _expectations(survey, plan)]
    return "\n".join(lines) + "\n"


def _typed(column: ColumnFacts) -> str:
    return quoted(column.type) if "," in column.type else column.type


def _expectations(survey: Survey, plan: ModelPlan | None) -> Iterator[str]:
    counts = sorted(plan.rows.values()) if plan else []
    if len(counts) >= 3:
        yield _expect(
            "expect_table_row_count_to_be_between", min_value=max(1, int(0.2 * counts[0])), max_value=5 * counts[-1]
        )
    else:
        yield _expect("expect_table_row_count_to_be_between", min_value=1)
    ids = {*suspects.identifiers(survey), *filter(suspects.GROUP.search, survey.columns), *(plan.key if plan else [])}
    must = {*plan.wish.labels, plan.wish.time} if plan else set()
    single = _single(survey, plan)
    for name, column in single.items():
        if len(single) <= WIDE or name in must:
            yield from _of_column(name, column, survey, plan, is_id=name in ids)


def _of_column(name: str, column: ColumnFacts, survey: Survey, plan: ModelPlan | None, *, is_id: bool) -> Iterator[str]:
    share = column.share_missing
    if share == 0:
        yield _expect("expect_column_values_to_not_be_null", column=name)
    elif share < 0.45 and (mostly := round(1 - _most_missing(name, column, survey, plan), 2)) > 0:
        yield _expect("expect_column_values_to_not_be_null", column=name, mostly=mostly)
    if column.kind == "text" and column.counts and 1 < len(column.counts) <= MOST_OF_A_SET and not is_id:
        yield _expect("expect_column_values_to_be_in_set", column=name, value_set=sorted(column.counts), mostly=0.9)
    if column.kind in {"integer", "number"} and column.low is not None and not is_id and not _is_time(name, plan):
        low, high = _range(column)
        yield _expect("expect_column_values_to_be_between", column=name, min_value=low, max_value=high)
        if (limits := _of_mean(survey.sample, name, plan)) is not None:
            limits = max(low, limits[0]), min(high, limits[1])
            yield _expect("expect_column_mean_to_be_between", column=name, min_value=limits[0], max_value=limits[1])


def _range(column: ColumnFacts) -> tuple[float, float]:
    """Twice the range so far; a number that is 0 or 1 stays one of them."""
    if column.kind == "integer" and (column.low, column.high) == (0, 1):
        return 0, 1
    span = (column.high - column.low) or abs(column.high) or 1
    return 0 if column.low >= 0 else tidy(column.low - span), tidy(column.high + span, up=True)


def _most_missing(name: str, column: ColumnFacts, survey: Survey, plan: ModelPlan | None) -> float:
    """The share that may be missing in a partition: twice the usual one, and more than in the worst so far."""
    share = column.share_missing
    if plan is None or len(plan.rows) < 2:
        return 2 * share + 0.05
    by_chance = share + 3 * math.sqrt(share * (1 - share) / max(1, min(plan.rows.values())))
    worst = survey.sample[name].isna().groupby(_partitions(survey.sample, plan)).mean().max()
    return max(2 * share + 0.05, by_chance, float(worst) + 0.05)


def _is_time(name: str, plan: ModelPlan | None) -> bool:
    return plan is not None and plan.form is not None and plan.form.column == name


def _of_mean(sample: pd.DataFrame, name: str, plan: ModelPlan | None) -> tuple[float, float] | None:
    """Limits of a partition's mean: as far as the partitions are apart, twice; and what chance does to few rows."""
    if plan is None or len(plan.rows) < 3 or name in {s.column for s in plan.left_out}:
        return None
    values = sample[name].astype("float64")
    spread, fewest = float(values.std()), max(1, min(plan.rows.values()))
    if not spread > 0:
        return None
    means = values.groupby(_partitions(sample, plan)).mean()
    room = 2 * float((means - values.mean()).abs().max()) + spread * max(0.5, 4 / fewest**0.5)
    return tidy(float(values.mean()) - room), tidy(float(values.mean()) + room, up=True)


def _apart(plan: ModelPlan, label: str) -> float:
    """How far a partition's mean of a label lies from the mean of all, as a share of it, at most."""
    if plan.split_by != "time" or len(plan.rows) < 3:
        return 0.0
    sample = plan.survey.sample[[label, plan.form.column]].dropna() if plan.form else plan.survey.sample
    labels = sample[label].astype("float64")
    means = labels.groupby(_partitions(sample, plan)).mean()
    return float((means / labels.mean() - 1).abs().max())


def _partitions(sample: pd.DataFrame, plan: ModelPlan) -> Any:
    if plan.form is not None and plan.by in times.UNITS:
        return times.names(plan.form.parse(sample[plan.form.column]), plan.by)
    return sample["__file__"]


def _expect(type_: str, **kwargs: Any) -> str:
    shown = ", ".join(f"{key}: {_value(value)}" for key, value in kwargs.items())
    return f"{{type: {type_}, kwargs: {{{shown}}}}}"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(each) for each in value)}]"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def quoted(text: str) -> str:
    """A text as YAML has it: bare where it can be nothing else."""
    bare = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_ -]*(?<! )", text)
    words = {"yes", "no", "on", "off", "true", "false", "null", "y", "n"}
    return text if bare and text.lower() not in words else json.dumps(text, ensure_ascii=False)


# ── params.yaml ───────────────────────────────────────────────────────────────────────────────────


def entry(plan: ModelPlan, files_: str) -> str:
    """The model's entry, to stand below `models:`."""
    lines = [
        f"{plan.wish.name}:  # made by `evergreen add-model` of {files_}; what each key does: docs/reference/params.md",
        f"  about: {quoted(_sentence(plan))}",
        f"  task: {_task(plan)}",
        f"  datasets: {{{plan.dataset}: {_reading(plan)}}}",
        f"  options: {{}}                      # handed to models/{plan.wish.name}/rows",
        *(["  timezone: UTC                    # in which the rows' times stand"] if plan.form else []),
        "  features:                        # what a request holds",
        *(f"    {line}" for line in _features(plan)),
        *(f"    # {line}" for line in _left_out(plan)),
        "  estimator:",
        *(f"    {line}" for line in _estimator(plan)),
        "    seed: 0",
        *_decision(plan),
        *_split(plan),
        f"  evaluate: {{slices: [{', '.join(map(quoted, _slices(plan)))}], resamples: 1000}}",
        *(f"  {line}" for line in _gate(plan)),
        "  retrain:",
        "    gap_days: 1" if plan.form else "    gap_days: 0",
        "    when:                          # one line is enough",
        "      - {growth: 0.1}              # rows that came since, as a share of what the champion learned from",
        *(
            [f"      - {{age_days: {_age_days(plan)}}}".ljust(35) + "# so old is what it learned last"]
            if plan.form
            else []
        ),
        "  serving: {max_rows: 1000}",
    ]
    return "\n".join(f"  {line}".rstrip() for line in lines) + "\n"


def _task(plan: ModelPlan) -> str:
    return f"{{{plan.task}: [{', '.join(map(quoted, plan.wish.labels))}]}}" if plan.wish.further else plan.task


def _reading(plan: ModelPlan) -> str:
    return f"{{history: {plan.outlook.history(plan.by)}}}" if plan.outlook else "partition"


def _split(plan: ModelPlan) -> list[str]:
    if plan.outlook is None:
        return [f"  split: {{by: {plan.split_by}, holdout: {plan.holdout:g}}}{_pad(plan)}"]
    seen = plan.outlook
    series = ", ".join(quoted(feature_name(name)) for name in seen.series)
    return [
        f"  split:{_pad(plan)}",
        "    by: time",
        f"    holdout: {plan.holdout:g}",
        f"    forecast: {{horizon: {seen.horizon}, season: {seen.season}, step: {seen.step}, series: [{series}]}}",
    ]


def _age_days(plan: ModelPlan) -> int:
    """60 days after a training: what was held out then is not learned, and so is older from the beginning."""
    days = {"day": 1, "month": 31, "quarter": 92, "year": 366, "decade": 3653}
    return 60 + (int(plan.holdout) * days.get(plan.by, 0) if plan.split_by == "time" else 0)


def _pad(plan: ModelPlan) -> str:
    words = "of the newest partitions" if plan.split_by == "time" else "of the rows, drawn by their id"
    return f"  # so many {words}" if plan.split_by == "time" else f"  # share {words}"


def _features(plan: ModelPlan) -> Iterator[str]:
    for part in plan.calendar:
        limits = {"hour": (0, 23), "weekday": (1, 7), "month": (1, 12)}[part]
        about = {"hour": "Hour of the day", "weekday": "Day of the week, Monday is 1", "month": "Month of the year"}[
            part
        ]
        low, high = limits
        yield f"{part}: {{type: integer, example: {low}, min: {low}, max: {high}, about: {quoted(about)}}}"
    for name in plan.own_features:
        yield f"{quoted(feature_name(name))}: {_feature(plan, name)}"
    for name, column in plan.spans.items():
        nullable = ", nullable: true" if plan.survey.columns[column].missing else ""
        yield f"{quoted(name)}: {{type: number, example: {_days_since(plan, column)}{nullable}, about: {quoted(name)}}}"
    yield from _past(plan)
    for block in plan.blocks:
        about = f"{block.columns[0]} to {block.columns[-1]}"
        middle = plan.survey.sample[block.columns[len(block.columns) // 2]].median()
        fields = f"type: vector, length: {len(block.columns)}, example: {middle:.6g}, about: {quoted(about)}"
        yield f"{quoted(block.feature)}: {{{fields}}}"


def _days_since(plan: ModelPlan, column: str) -> str:
    """The middle of the days from a column's time to the row's."""
    assert plan.form is not None
    before = plan.survey.sample[column]
    before = before.dt.tz_localize(None) if before.dt.tz is not None else before
    days = (plan.form.parse(plan.survey.sample[plan.form.column]) - before).dt.total_seconds() / 86_400
    return f"{days.median():.6g}"


def _past(plan: ModelPlan) -> Iterator[str]:
    """The features of a forecast that are the past of its label and of other columns."""
    if plan.outlook is None:
        return
    seen, label = plan.outlook, str(plan.wish.label)
    columns = {name: (label, f"{label}, {steps} step{'s'[: steps > 1]} before") for name, steps in seen.lags.items()}
    columns[seen.mean] = label, f"{label}, mean of the {seen.window} steps up to {seen.horizon} before"
    columns |= {
        name: (column, f"{column}, {seen.horizon} step{'s'[: seen.horizon > 1]} before")
        for name, column in plan.past.items()
    }
    for name, (column, about) in columns.items():
        example = _example(plan, plan.survey.columns[column], "number")
        yield f"{quoted(name)}: {{type: number, example: {example}, nullable: true, about: {quoted(about)}}}"


def _feature(plan: ModelPlan, name: str) -> str:
    column = plan.survey.columns[name]
    type_ = feature_type(column)
    fields = [f"type: {type_}", f"example: {_example(plan, column, type_)}"]
    if type_ in {"integer", "number"} and column.low is not None and column.low >= 0:
        fields.append("min: 0")
    if column.missing and type_ != "text":
        fields.append("nullable: true")
    return f"{{{', '.join([*fields, f'about: {quoted(_about(column, type_))}'])}}}"


def _example(plan: ModelPlan, column: ColumnFacts, type_: str) -> str:
    values = plan.survey.sample[column.name].dropna()
    if not len(values):
        return "null"
    if type_ == "boolean":
        return str(bool(values.mode().iloc[0])).lower()
    if type_ in {"category", "text"}:
        return json.dumps(str(values.mode().iloc[0])[:200], ensure_ascii=False)
    if type_ in {"integer", "number"}:
        middle = values.astype("float64").quantile(0.5, "lower")
        return f"{middle:.0f}" if type_ == "integer" or float(middle).is_integer() else f"{middle:.6g}"
    return json.dumps(str(values.iloc[0]))


def _about(column: ColumnFacts, type_: str) -> str:
    if type_ in {"integer", "number"} and column.low is not None:
        return f"{column.name}, {column.low:.6g} to {column.high:.6g}"
    if column.counts and type_ == "category":
        return f"{column.name}, one of {len(column.counts)}"
    return column.name


def _left_out(plan: ModelPlan) -> Iterator[str]:
    for suspicion in plan.left_out:
        column = plan.survey.columns.get(suspicion.column)
        line = (
            f"{quoted(feature_name(suspicion.column))}: {_feature(plan, suspicion.column)}"
            if column and _can_be(column)
            else suspicion.column
        )
        line += f"  # LEAK? {suspicion.why}" if suspicion.is_leak else f"  # left out: it {suspicion.why}"
        yield " ".join(line.splitlines())  # a name or a label may have a line break


def _can_be(column: ColumnFacts) -> bool:
    return column.kind in {"integer", "number", "truth"} or (column.kind == "text" and column.counts is not None)


def _decision(plan: ModelPlan) -> list[str]:
    if plan.wish.cost is None:
        return []
    positive, negative = plan.wish.cost
    return [f"    decision: {{cost: {{false_positive: {positive:g}, false_negative: {negative:g}}}}}"]


def _cost_without_model(plan: ModelPlan) -> float:
    """A row, where always that class is decided for that costs less."""
    second = max(plan.labels[0].counts or {"": 1})
    share = float((plan.values(plan.wish.labels[0]) == second).mean())
    positive, negative = plan.wish.cost or (1, 1)
    return min(positive * (1 - share), negative * share)


def _estimator(plan: ModelPlan) -> list[str]:
    if plan.task == "anomaly":
        return _detector(plan)
    if plan.is_linear and plan.is_classification:
        width = len(plan.features) + sum(len(block.columns) for block in plan.blocks)
        crowded = 0.01 if width > plan.survey.rows / 2 else 0.1 if width > plan.survey.rows / 10 else 1.0
        strength = 10.0 if plan.texts else crowded  # with few rows for so many columns it would be too sure
        return ["class: sklearn.linear_model.LogisticRegression", f"params: {{C: {strength}, max_iter: 1000}}"]
    if plan.is_linear:
        return ["class: sklearn.linear_model.Ridge", "params: {alpha: 1.0}"]
    kind = "Classifier" if plan.is_classification else "Regressor"
    own = "l2_regularization: 1.0, " if plan.is_classification else "loss: absolute_error, " if plan.outlook else ""
    leaf = max(5, min(500, plan.survey.rows // 500))
    return [
        f"class: sklearn.ensemble.HistGradientBoosting{kind}",
        (
            f"params: {{{own}max_iter: 150, learning_rate: 0.08, max_leaf_nodes: 15, min_samples_leaf: {leaf}, "
            f"early_stopping: false}}"
        ),
    ]


def _detector(plan: ModelPlan) -> list[str]:
    class_ = "class: sklearn.ensemble.IsolationForest"
    if plan.form is None:
        return [class_, f"params: {{n_estimators: 200, contamination: {STRANGE}}}  # so many rows raise an alert"]
    a_day = tidy(max(0.1, STRANGE * plan.survey.rows / max(1, plan.days)))
    return [
        class_,
        "params: {n_estimators: 200}",
        f"alerts_per_day: {a_day:g}".ljust(31) + "# so many a person can look at",
    ]


def _slices(plan: ModelPlan) -> list[str]:
    """Personal columns first, then categories of few values."""
    named = [s.column for s in plan.personal if not s.why.startswith("a proxy")]
    few = [n for n in plan.own_features if 2 <= len(plan.survey.columns[n].counts or ()) <= 12]
    texts = [n for n in few if plan.survey.columns[n].kind == "text"]
    chosen = [n for n in dict.fromkeys([*named, *texts]) if n in few]
    return [feature_name(name) for name in chosen[:MOST_SLICES]]


def _error_of_mean(plan: ModelPlan, label: str, holdout: int) -> float:
    """How far the mean of the predictions may be off: by chance, and by half of how far partitions lie apart."""
    values = plan.values(label)
    mean, spread = abs(float(values.mean())), float(values.std())
    by_chance = 0.1 + 3 * spread / holdout**0.5 / mean if mean > 0.05 * spread else 1000.0
    return max(by_chance, 0.5 * _apart(plan, label))


def _gate(plan: ModelPlan) -> list[str]:
    holdout = max(1, plan.holdout_rows)
    if plan.task == "anomaly":
        return _gate_of_anomaly(holdout)
    if plan.is_classification:
        loss, margin, slices, error = "log_loss", 0.01, 0.05, tidy(0.1 + 1.5 / holdout**0.5)
        words = "expected calibration error at most"
        if plan.wish.cost:
            loss, margin, slices = "cost", tidy(0.02 * _cost_without_model(plan)), tidy(0.2 * _cost_without_model(plan))
    else:
        variance = sum(float(plan.values(label).var()) for label in plan.wish.labels) / len(plan.wish.labels)
        loss, margin, slices = "squared", tidy(0.02 * variance), tidy(0.2 * variance)
        if plan.outlook:
            loss, margin, slices = "absolute", tidy(0.02 * variance**0.5), tidy(0.2 * variance**0.5)
        error = tidy(max(_error_of_mean(plan, label, holdout) for label in plan.wish.labels))
        words = "|mean predicted / mean observed − 1| at most"
    return [
        "gate:",
        "  rule: better                     # a challenger must be better beyond doubt",
        f"  loss: {loss}",
        f"  margin: {_value(margin)}",
        "  champion_age: 2",
        f"  min_rows: {max(5, holdout // 3)}{' ' * 20}  # held out, at least",
        "  floors: {}                       # metric → what it must reach, as {roc_auc: 0.7}",
        *(
            ["  ceilings: {mase: 1.0}            # better than the season before was in training"]
            if plan.outlook
            else []
        ),
        *(["  coverage: [0.7, 0.9]             # so many labels may lie within the intervals"] if plan.outlook else []),
        *([] if plan.outlook else ["  ceilings: {}"]),
        f"  slice_min_rows: {max(20, holdout // 20)}",
        f"  slice_margin: {_value(slices)}",
        f"  calibration: {_value(error)}{' ' * 10}  # {words}",
        "  latency_ms: 200                  # one row through the packaged release",
        "  size_mb: 100",
    ]


def _gate_of_anomaly(holdout: int) -> list[str]:
    return [
        "gate:",
        "  rule: not_worse",
        "  loss: average_precision          # where enough labels are known; else by the scores alone",
        "  margin: 0.1",
        "  champion_age: 2",
        f"  min_rows: {max(5, holdout // 3)}{' ' * 20}  # held out, at least",
        "  floors: {stability: 0.5}         # of two models of a half of the rows each, rank correlation of scores",
        f"  ceilings: {{alert_rate: {5 * STRANGE:g}}}     # share of the rows that raise an alert",
        "  latency_ms: 200                  # one row through the packaged release",
        "  size_mb: 100",
    ]
