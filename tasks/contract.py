"""What a model asks of a dataset: columns with types, and an expectation suite.

`models/<name>/expectations/<dataset>.yaml`, read by whoever reads a partition: the one that validates it and
the one that makes rows of it see the same types.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from tasks import settings, yaml_reader
from tasks.errors import ContractError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

TYPES = ("int64", "float64", "str", "bool", "datetime64[us]", "datetime64[us, UTC]")


class Contract(BaseModel):
    """One model's requirements of one dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, str]
    expectations: list[dict[str, Any]]
    nulls: list[str] = [""]
    """Texts that mean «missing» in a CSV."""
    key: list[str] = []
    """The columns that tell a row of a partition from every other; empty: none do."""

    @field_validator("columns")
    @classmethod
    def _known_types(cls, columns: dict[str, str]) -> dict[str, str]:
        for name, type_ in columns.items():
            if type_ not in TYPES:
                raise ValueError(f"{name}: {type_!r} is not a type{did_you_mean(type_, list(TYPES))}")
        return columns

    @model_validator(mode="after")
    def _key_is_of_columns(self) -> Contract:
        if unknown := [name for name in self.key if name not in self.columns]:
            raise ValueError(f"key: {unknown[0]!r} is not a column{did_you_mean(unknown[0], list(self.columns))}")
        return self


def path_of(model: str, dataset: str) -> Path:
    """Where the contract of a model with a dataset lies."""
    return settings.ROOT / "models" / model / "expectations" / f"{dataset}.yaml"


def load(model: str, dataset: str) -> Contract:
    """Read a contract.

    Raises:
        ContractError: the file is missing, is not YAML, or has unknown keys or types.
    """
    path = path_of(model, dataset)
    where = path.relative_to(settings.ROOT)
    try:
        return Contract.model_validate(yaml_reader.read(path, str(where), ContractError, dvc_reads=False))
    except FileNotFoundError:
        raise ContractError(
            f"{where} is not there, but params.yaml says that {model} reads {dataset}. "
            f"Write down what it asks of a partition (columns, expectations)."
        ) from None
    except ValidationError as error:
        faults = [f"{where}: {'.'.join(map(str, f['loc'])) or '(top level)'}: {f['msg']}" for f in error.errors()]
        raise ContractError("\n".join(faults)) from None


class Unreadable(ValueError):
    """A partition that cannot be read with the contract's types; says where."""


def read(path: Path, contract: Contract) -> pd.DataFrame:
    """Read a partition (CSV or Parquet) with the contract's types; other columns get the types they look like.

    Raises:
        Unreadable: not a table, cut off, or a value that is not of its column's type.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    types = {name: _arrow(pa, type_) for name, type_ in contract.columns.items()}
    try:
        if path.suffix == ".parquet":
            table = parquet.read_table(path)
            for i, field in enumerate(table.schema):
                if field.name in types and field.type != types[field.name]:
                    table = table.set_column(i, field.name, table.column(i).cast(types[field.name]))
        else:
            options = csv.ConvertOptions(
                column_types=types,
                null_values=contract.nulls,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            )
            table = csv.read_csv(path, convert_options=options)
        frame: pd.DataFrame = table.to_pandas()
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:
        raise Unreadable(re.sub(r"\s+", " ", str(error))[:500]) from None
    return frame


def _arrow(pa: Any, type_: str) -> Any:
    return {
        "int64": pa.int64(),
        "float64": pa.float64(),
        "str": pa.string(),
        "bool": pa.bool_(),
        "datetime64[us]": pa.timestamp("us"),
        "datetime64[us, UTC]": pa.timestamp("us", tz="UTC"),
    }[type_]
