"""Feature types: what a value of each is in a request, in a table of rows, and to a pipeline.

| type | in JSON | in a table, and to a pipeline |
| --- | --- | --- |
| category, text | text | str |
| integer, number | number | float64 |
| boolean | true, false | float64: 1, 0 |
| datetime | RFC 3339; without an offset it is local time, by `timezone` | datetime64[us], local time |
| vector | list of numbers | its numbers: columns `<name>_0`, `<name>_1`, … of float64, behind all others |

What is missing is null in JSON, and NaN, NaT or a missing text in a table.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Features = Mapping[str, Mapping[str, Any]]
"""Name → `type`, and what else params.yaml says of it, as `params.Model.described` gives it."""

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?")


def table_columns(features: Features) -> list[str]:
    """The columns of a table of these features: one each, and behind them those of vectors."""
    vectors = [name for name, feature in features.items() if feature["type"] == "vector"]
    single = [name for name in features if name not in vectors]
    return [*single, *(column for name in vectors for column in vector_columns(name, features[name]["length"]))]


def vector_columns(name: str, length: int) -> list[str]:
    """The columns of a vector's numbers."""
    return [f"{name}_{i}" for i in range(length)]


MOST_PLAYERS = 64
"""So many parts are explained at most: the time of an explanation grows with the square of their number."""


def players(features: Features) -> dict[str, list[str]]:
    """What an explanation is made of, as name → columns of the table.

    Each feature by itself, a vector as one, as long as there are no more than MOST_PLAYERS features. Where there are
    more, those of one `group` (of one pattern in params.yaml) are one, and then neighbours, by name. Where only one
    would be left, it is cut into parts.
    """
    groups: dict[str, list[str]] = {}
    for name, feature in features.items():
        group = (feature.get("group") if len(features) > MOST_PLAYERS else None) or name
        groups.setdefault(group, []).extend(table_columns({name: feature}))
    members = [sorted(columns, key=_natural) for columns in groups.values()]
    if len(members) == 1 and len(members[0]) > 1:
        return dict(map(_part, _cut(members[0])))
    if len(members) <= MOST_PLAYERS:
        return dict(zip(groups, members, strict=True))
    return dict(_part([column for columns in part for column in columns]) for part in _cut(members))


def _cut(members: list[Any]) -> list[list[Any]]:
    """MOST_PLAYERS stretches of about the same length, or as many as there are members."""
    count = min(MOST_PLAYERS, len(members))
    ends = [len(members) * part // count for part in range(count + 1)]
    return [members[begin:end] for begin, end in pairwise(ends)]


def _part(columns: list[str]) -> tuple[str, list[str]]:
    return columns[0] if len(columns) == 1 else f"{columns[0]} … {columns[-1]}", columns


def _natural(name: str) -> list[Any]:
    """pixel_9 before pixel_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def flat(row: Mapping[str, Any], features: Features) -> dict[str, Any]:
    """A request's row by the columns of the table."""
    values: dict[str, Any] = {}
    for name, feature in features.items():
        if feature["type"] == "vector":
            numbers = row[name] or [None] * feature["length"]
            values |= dict(zip(vector_columns(name, feature["length"]), numbers, strict=True))
        else:
            values[name] = row[name]
    return {column: values[column] for column in table_columns(features)}


def table(columns: Mapping[str, Sequence[Any]], features: Features) -> pd.DataFrame:
    """As `frame`, of values by the columns of the table."""
    import pandas as pd

    types = {name: feature["type"] for name, feature in features.items()}
    return pd.DataFrame({name: _array(values, types.get(name, "number")) for name, values in columns.items()})


def frame(columns: Mapping[str, Sequence[Any]], features: Features) -> pd.DataFrame:
    """The table of some requests' rows, as a pipeline was fitted on it.

    Args:
        columns: feature → its values as they were parsed, None where missing.
        features: all of them, in order.
    """
    import pandas as pd

    single = {n: _array(columns[n], f["type"]) for n, f in features.items() if f["type"] != "vector"}
    blocks = [
        pd.DataFrame(_matrix(columns[name], feature["length"]), columns=vector_columns(name, feature["length"]))
        for name, feature in features.items()
        if feature["type"] == "vector"
    ]
    return pd.concat([pd.DataFrame(single), *blocks], axis=1) if blocks else pd.DataFrame(single)


def _array(values: Sequence[Any], type_: str) -> Any:
    import numpy as np
    import pandas as pd

    if type_ in ("category", "text"):
        return pd.array(list(values), dtype="str")
    return np.array(values, dtype="datetime64[us]" if type_ == "datetime" else np.float64)  # None becomes NaT or NaN


def _matrix(values: Sequence[Any], length: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    import numpy as np

    missing = [np.nan] * length
    rows = [missing if value is None else value for value in values]
    return np.array(rows, dtype=np.float64).reshape(len(rows), length)


def hashed_texts(features: Features) -> list[str]:
    """The texts of which the prediction log keeps a hash only (`log: hash`)."""
    return [name for name, feature in features.items() if feature.get("log") == "hash"]


_HASH = re.compile(r"sha256:[0-9a-f]{32}")


def for_log(row: Mapping[str, Any], hashed: Sequence[str]) -> dict[str, Any]:
    """A row as the prediction log keeps it: of these texts a hash, which is the same for the same text."""
    return {**row, **{name: _hashed(row[name]) for name in hashed if row[name] is not None}}


def _hashed(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def is_whole(row: Mapping[str, Any], features: Features) -> bool:
    """Whether a row of the prediction log has its texts, and not hashes of them: only then it can be asked again."""
    texts = (row.get(name) for name, feature in features.items() if feature["type"] == "text")
    return not any(isinstance(text, str) and _HASH.fullmatch(text) for text in texts)


def requests(table: pd.DataFrame, features: Features) -> list[dict[str, Any]]:
    """The rows of a table as a client would post them: whole integers, texts of times, lists, null where missing."""
    columns = [_posted(table, name, feature) for name, feature in features.items()]
    return [dict(zip(features, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _posted(table: pd.DataFrame, name: str, feature: Mapping[str, Any]) -> list[Any]:
    import numpy as np

    kind = feature["type"]
    if kind == "vector":
        block = table[vector_columns(name, feature["length"])].to_numpy(dtype=np.float64)
        return [None if np.isnan(row).all() else row.tolist() for row in block]
    present = table[name].notna().tolist()
    cells = table[name].tolist()
    return [_as_json(cell, kind) if has_value else None for cell, has_value in zip(cells, present, strict=True)]


def _as_json(cell: Any, kind: str) -> Any:
    if kind == "datetime":
        return cell.isoformat()
    if kind == "boolean":
        return bool(cell)
    return int(cell) if kind == "integer" and float(cell).is_integer() else cell


def local_time(value: Any, timezone: str) -> datetime:
    """A time of a request as local time: with an offset it is converted, without one it is that already.

    Raises:
        ValueError: it is no time as RFC 3339 has it (its offset may be left out), or none that can be converted.
    """
    if isinstance(value, str):
        if not _RFC_3339.fullmatch(value):
            raise ValueError("is no time: write it as 2013-01-31T08:00:00, with an offset (+01:00, Z) or in local time")
        value = datetime.fromisoformat(value.upper())
    if not isinstance(value, datetime):
        kind = "a date" if isinstance(value, date) else type(value).__name__
        raise ValueError(f"is no time, but {kind}")  # noqa: TRY004 - of what a client sends
    if value.tzinfo is None:
        return value
    try:
        return value.astimezone(ZoneInfo(timezone)).replace(tzinfo=None, fold=0)
    except OverflowError:
        raise ValueError("lies outside of the years 1 to 9999") from None
