"""Texts of a drafted forecast: its rows, which look back, and their test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.drafting import times

if TYPE_CHECKING:
    from tasks.drafting.plan import ModelPlan


def rows(plan: ModelPlan) -> str:
    """models/<name>/rows/__init__.py."""
    seen, form, label = plan.needed_outlook, plan.form, plan.wish.label
    assert form is not None
    missing = [name for name in (form.column, *seen.series) if plan.survey.columns[name].missing]
    time = [*([f"table = table.dropna(subset={missing!r})"] if missing else []), *form.code()]
    if seen.step == "month":
        time.append("time = time.dt.normalize() + pd.offsets.MonthBegin(0)  # a month is known once it is over")
    past = [f'past["{seen.mean}"] = values.shift({seen.horizon}).rolling({seen.window}, min_periods=1).mean()']
    past += [f"past[{name!r}] = _values(table, {column!r}).shift({seen.horizon})" for name, column in plan.past.items()]
    renaming = f".rename(columns={plan.renamed!r})" if plan.renamed else ""
    made = [f"{part}={code}" for part, code in plan.calendar_code('own["time"]').items()]
    made += [f"label=own[{label!r}]", "id=" + ' + "/" + '.join(f"own[{name!r}].astype(str)" for name in plan.key)]
    join = LONG if seen.series else '    own = own.join(pd.DataFrame(past), on="time")'
    return f'''"""A table of {plan.dataset} → a row a time, with what was known {seen.words} before."""

from __future__ import annotations

import pandas as pd

from tasks.tables.partitions import WantedPartition
{f"{chr(10)}MONTHS = {times.MONTHS!r}" if form.how == "german" else ""}
LAGS = {dict(seen.lags)!r}
"""Feature → how many steps ({seen.step}) before a row's time; {seen.horizon} before, the row is asked."""
{f"{chr(10)}SERIES = {list(seen.series)!r}" if seen.series else ""}

def rows(tables: dict[str, pd.DataFrame], partition: WantedPartition) -> pd.DataFrame:
    """What was known of each row when it was asked, and `label`, `time` and `id`.

    The model learns from those that stand in params.yaml, below models.{plan.wish.name}.features.
    """
    table = tables[{plan.dataset!r}]  # the partition, and those before it that its lags reach back to
    {f"{chr(10)}    ".join(time)}
    table = table.assign(time=time)
    values = _values(table, {label!r})
    past = {{name: values.shift(steps) for name, steps in LAGS.items()}}
    {f"{chr(10)}    ".join(past)}
    own = table[table.index.get_level_values("partition") == partition.name].dropna(subset=[{label!r}])
{join}
    return own{renaming}.assign({", ".join(made)})


{VALUES_OF_SERIES if seen.series else VALUES}.asfreq({seen.frequency!r})
'''


LONG = """\
    long = {name: lag.melt(ignore_index=False).set_index(SERIES, append=True)["value"] for name, lag in past.items()}
    own = own.join(pd.DataFrame(long), on=["time", *SERIES])"""

VALUES = '''def _values(table: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column by time, without gaps, so that a lag is of a time and not of a row."""
    return table.set_index("time")[column]'''

VALUES_OF_SERIES = '''def _values(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of each series by time, without gaps, so that a lag is of a time and not of a row."""
    return table.pivot_table(index="time", columns=SERIES, values=column, aggfunc="last")'''


def test(plan: ModelPlan) -> str:
    """A test of its rows, on a series that counts up."""
    seen, form, model = plan.needed_outlook, plan.form, plan.wish.name
    assert form is not None
    lag, steps = next(iter(seen.lags.items()))
    count = seen.reach + 3
    columns = {form.column: TIMES.get(form.how, "TIMES"), **dict.fromkeys(seen.series, '"1"')}
    columns |= dict.fromkeys([str(plan.wish.label), *plan.past.values()], f"range({count})")
    types = {name: plan.survey.columns[name].type for name in columns if name != form.column}
    return f'''"""{model}: from its table to rows."""

from __future__ import annotations

import pandas as pd

from models.{model}.rows import rows
from tasks.ground import params
from tasks.tables.partitions import wanted
from tasks.training.conformance import conform

TIMES = pd.Series(pd.date_range("2023-01-01", periods={count}, freq={seen.frequency!r}, unit="us"))
COLUMNS = {{{", ".join(f"{name!r}: {code}" for name, code in columns.items())}}}
TABLE = pd.DataFrame(COLUMNS).astype({types!r})
"""A value a step, made up: it counts up by one."""


def test_a_lag_is_the_value_so_many_steps_before() -> None:
    """Whoever asks {seen.words} ahead knows nothing newer."""
    model = params.load().model({model!r})
    tables = {{{plan.dataset!r}: pd.concat({{"2023": TABLE}}, names=["partition", "row"])}}
    made = conform(rows(tables, wanted("2023")), {model!r}, model)
    assert made[{lag!r}].notna().any()
    assert (made["label"] - made[{lag!r}]).dropna().eq({steps}).all()
'''


TIMES = {
    "zoned": 'TIMES.dt.tz_localize("UTC")',
    "s": 'TIMES.astype("int64") // 1_000_000',
    "ms": 'TIMES.astype("int64") // 1_000',
    "day": 'TIMES.dt.strftime("%Y%m%d").astype("int64")',
    "year": "TIMES.dt.year",
    "german": 'TIMES.dt.strftime("%d %b %Y %H:%M")',
}
"""How the table says times → those of the test, so written."""
