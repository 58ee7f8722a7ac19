"""Look-ahead of forecasts: features may hold only what was known when a row was asked, its lead before its time.

Cutting off what comes after a row's time (point_in_time.py) does not show what its origin did not know. Here nothing is
cut off, as labels need what comes later: everything after some moment is made other. Of each table one half of the
later rows is left out, and the numbers of the rest are dealt out anew among them. Rows that were asked before that
moment must have the same features.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.ground import files, import_closure
from tasks.ground.errors import ModelCodeError
from tasks.modelling.rows import as_features
from tasks.tables import contract
from tasks.training import rows_maker
from tasks.training.origins import LEAD
from tasks.training.point_in_time import differ

if TYPE_CHECKING:
    import pandas as pd

    from tasks.training.origins import Asked
    from tasks.training.rows_maker import RowsMaker


def refuse(maker: RowsMaker, partition: str, asked: Asked) -> None:
    """Refuse rows of a partition whose features change when what came after their origin does; once per content.

    Raises:
        ModelCodeError: names the features, and the first row.
    """
    code = import_closure.hashes("tasks/training/look_ahead.py")
    key = {"rows": maker.rows(partition).name, "asked": vars(asked), "code": code}
    result = files.read_json(
        files.memo("look-ahead", key, ".json", lambda target: files.write_json(target, _tried(maker, partition, asked)))
    )
    if result:
        example = f"id {result['id']!r}, of {result['time']}, was asked at {result['asked']}"
        raise ModelCodeError(
            f"models/{maker.name}/rows, partition {partition}: {', '.join(result['features'])}: look ahead. They "
            f"change when only what came after {result['moment']} does, in rows that were asked before: {example}. "
            f"Use what is `lead` steps older than a row's time, or more (without a feature `lead`: {asked.horizon} "
            f"steps of {asked.step}). A dataset that is known ahead, as a plan, is named in split.forecast.known_ahead"
        )


def _tried(maker: RowsMaker, partition: str, asked: Asked) -> dict[str, Any]:
    """The features that look ahead, and an example; empty: none does, or rows cannot be made of such tables."""
    import pandas as pd

    rows = pd.read_parquet(maker.rows(partition))
    origins = asked.origins(rows)
    moment = origins.sort_values().iloc[(len(origins) - 1) // 2]
    tables = {
        dataset: {path.stem: _table(maker, dataset, path, moment, asked) for path in paths}
        for dataset, paths in maker.files(partition).items()
    }
    try:
        other = rows_maker.call(maker.name, maker.model, partition, tables)
    except ModelCodeError:
        return {}
    other = pd.DataFrame({**as_features(other, maker.model.features), "time": other["time"].astype("datetime64[us]")})
    before, after = _aligned(rows.assign(asked=origins)[(origins <= moment).to_numpy()], other, asked)
    changed = {name: differ(before[name], after[name]) for name in maker.model.columns}
    guilty = [name for name, differs in changed.items() if differs.any()]
    if not guilty:
        return {}
    first = before[changed[guilty[0]]].iloc[0]
    return {"features": guilty, "moment": str(moment), **{name: str(first[name]) for name in ("id", "time", "asked")}}


def _aligned(before: pd.DataFrame, after: pd.DataFrame, asked: Asked) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that are in both: of one series, time and lead. Their ids may be numbers, which others get meanwhile."""
    same = [name for name in dict.fromkeys([*asked.series, "time", LEAD]) if name in before]
    places = before[same].assign(_before=range(len(before)))
    both = places.merge(after[same].assign(_after=range(len(after))).drop_duplicates(same), on=same)
    return before.iloc[both["_before"]], after.iloc[both["_after"]]


def _table(maker: RowsMaker, dataset: str, path: Path, moment: pd.Timestamp, asked: Asked) -> pd.DataFrame:
    """A table in which every number that was not known at a moment is another."""
    table = rows_maker.read_table(maker.name, dataset, path)
    suite = contract.load(maker.name, dataset, path.stem)
    is_known = dataset in asked.known_ahead
    column = suite.time if maker.model.datasets[dataset].how == "static" else suite.time_column
    return table if is_known or column is None else _altered(table, column, moment, maker.model.timezone)


def _altered(table: pd.DataFrame, column: str, moment: pd.Timestamp, timezone: str) -> pd.DataFrame:
    times = table[column]
    local = times.dt.tz_convert(timezone).dt.tz_localize(None) if times.dt.tz is not None else times
    later, draw = (local > moment).to_numpy(), np.random.default_rng(0)
    stays = ~later | (draw.random(len(table)) < 0.5)
    kept, places = table[stays].copy(), np.flatnonzero(later[stays])
    dealt = draw.permutation(places)  # the same for all columns: a day and an hour in two of them stay a later time
    for name in kept:
        if kept[name].dtype.kind in "if":
            values = kept[name].array.copy()
            values[places] = values[dealt]
            kept[name] = values
    return kept
