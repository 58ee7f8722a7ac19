"""Sources of a batch: files of feature rows, or partitions of raw tables, here or in a bucket; read in chunks.

A file of rows (.csv, .tsv, .parquet, .jsonl) has the columns that a request has. A partition of a dataset has the raw
tables: models/<name>/rows makes features of it, as `prepare` does for training, and labels are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from tasks.ground import addresses, files, import_closure, params, settings
from tasks.ground.errors import DataMissing, Mistake, ModelCodeError, WorldError
from tasks.ground.errors import did_you_mean as hint
from tasks.ground.storage import Location
from tasks.modelling import user_code
from tasks.runtime import answer_columns
from tasks.tables import contract, conversions, partitions, selection, table_files

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TABLES = table_files.SUFFIXES
ROWS = (*TABLES, ".jsonl", ".ndjson")
BESIDE = ("id", "time", "label")
"""Columns that a row may have beside its features (models/<name>/rows gives them), kept with its answer."""

OWN = ("row", "prediction", "probability", "low", "high", "anomaly_score", "unseen", "problem")
LINEAGE = ("prediction_id", "model", "version", "release", "source", "data")
"""The columns of the answers, beside `p_<class>` and those that are kept."""

EVERY = "*"
"""In `keep`: every column that is no feature."""

ROW = "row"
"""A column of nulls in `Chunk.kept`, so that a table without columns has rows."""


class BatchRefused(WorldError):
    """A source cannot be scored: it lacks columns, cannot be read, or not one of its rows is valid."""


@dataclass(frozen=True)
class Chunk:
    """Some rows, as tasks/release/scorer_worker.py takes them, and the columns that are kept with their answers."""

    rows: pa.Table
    """The features; or `json`, a row as a client would post it; or both, where a value is not of its column's type."""
    kept: pa.Table
    done: float
    """Which share of the source is read, after this chunk."""


@dataclass(frozen=True)
class Fetched:
    """A source whose files are on this machine."""

    data: str
    """SHA-256 of what the rows are made of."""
    facts: dict[str, Any]
    """Its parts, for the auditor."""
    rows: Callable[[], Path]
    """Gives the file of rows; makes it first, where raw tables are the source."""


@dataclass(frozen=True)
class Source:
    """A file of rows; a `Partition` is one too."""

    name: str
    """Where it is, below what was asked for."""
    places: list[Location]

    @property
    def where(self) -> str:
        """Where it is, as it may be shown."""
        return ", ".join(place.shown for place in self.places)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(place.size() for place in self.places)

    def content_tag(self) -> str | None:
        """A tag of its content that is known without reading it; None where there is none."""
        return self.places[0].tag()

    def fetch(self, scratch: Path) -> Fetched:
        """Bring it to this machine, into a folder."""
        path = self.places[0].on_this_machine(scratch)
        return Fetched(files.sha256(path), {}, lambda: path)


# ── what is asked for ─────────────────────────────────────────────────────────────────────────────


def find(name: str, config: params.Params, source: str) -> list[Source]:
    """The sources that a person names for a model.

    `source` is a file or a folder of rows, by path or URL; or a partition: `<dataset>/<partition>`, or its file in
    data/ or in the landing zone.
    """
    model = config.model(name)
    if partition := _partition(model, config, source):
        tables = {dataset: _tables(dataset, reading, partition, config) for dataset, reading in model.datasets.items()}
        return [Partition(partition, [place for places in tables.values() for place in places], name, tables)]
    place = Location.of(source)
    if place.is_file():
        if (suffix := PurePosixPath(place.shown).suffix) not in ROWS:
            kinds = f"its name ends in {suffix or 'nothing'}, not in {', '.join(ROWS)}"
            raise Mistake(f"{place.shown} is not a file of rows: {kinds}")
        return [Source(PurePosixPath(place.path).name, [place])]
    if place.is_folder():
        names = [name for name in place.files() if name.endswith(ROWS) and not re.search(r"(^|/)_", name)]
        if names:  # without such as Spark's _temporary/
            return [Source(name, [place / name]) for name in names]
        raise DataMissing(f"below {place.shown} lies no file to be scored ({', '.join(ROWS)})")
    choices = [f"{dataset}/{path.stem}" for dataset in model.datasets for path in _all_tables(dataset)]
    raise DataMissing(
        f"there is no {place.shown}: name a file or a folder of rows, by path or URL, or a partition of the data, as "
        f"<dataset>/<partition>{hint(source, choices) if choices else ''}"
    )


def _partition(model: params.Model, config: params.Params, source: str) -> str | None:
    dataset, _, partition = source.partition("/")
    if re.fullmatch(r"[\w-]+/[\w-]+", source) and dataset in model.datasets:
        return partition
    for home in ("data", config.landing):
        below = source.removeprefix(home.rstrip("/")).removeprefix(str(settings.ROOT / home))
        path = PurePosixPath(below.lstrip("/"))
        if below != source and len(path.parts) == 2 and path.parts[0] in model.datasets and path.suffix in TABLES:
            return path.stem
    return None


def _all_tables(dataset: str) -> list[Path]:
    return [path for path in sorted((settings.ROOT / "data" / dataset).glob("*")) if path.suffix in TABLES]


def _tables(dataset: str, reading: params.Reading, partition: str, config: params.Params) -> list[Location]:
    """What a partition's rows are made of: its own file, wherever it lies, beside those of data/."""
    accepted = [path for path in _all_tables(dataset) if not (reading.needs_own and path.stem == partition)]
    if not reading.needs_own:
        return [Location.of(str(path)) for path in selection.of(dataset, reading, partition, accepted)]
    own = _table(dataset, partition, config)
    before = reading.model_copy(update={"last": reading.last - 1})
    history = selection.of(dataset, before, partition, accepted) if before.last else []
    return [*(Location.of(str(path)) for path in history), own]


def _table(dataset: str, partition: str, config: params.Params) -> Location:
    for home in ("data", config.landing):
        for suffix in TABLES:
            place = Location.of(f"{home.rstrip('/')}/{dataset}/{partition}{suffix}")
            if place.is_file():
                return place
    near = hint(partition, [path.stem for path in _all_tables(dataset)])
    landing = addresses.masked(config.landing)
    raise DataMissing(f"{dataset}/{partition} is neither in data/ nor in the landing zone {landing}{near}")


@dataclass(frozen=True)
class Partition(Source):
    """What the rows of one partition are made of; from data/, or from the landing zone what ingest has not taken."""

    model: str
    tables: dict[str, list[Location]]

    def content_tag(self) -> None:  # noqa: D102
        return None

    def fetch(self, scratch: Path) -> Fetched:  # noqa: D102
        local = {
            dataset: [place.on_this_machine(scratch) for place in places] for dataset, places in self.tables.items()
        }
        hashes = {dataset: {path.name: files.sha256(path) for path in paths} for dataset, paths in local.items()}
        facts = {"tables": hashes, "code": _code_digest(self.model)}
        return Fetched(files.digest(facts), facts, lambda: self._make_rows(local, scratch / f"{self.name}.parquet"))

    def _make_rows(self, local: dict[str, list[Path]], target: Path) -> Path:
        model = params.load().model(self.model)
        try:
            tables = {
                dataset: selection.joined(
                    model.datasets[dataset], {path.stem: _read(self.model, dataset, path) for path in paths}
                )
                for dataset, paths in local.items()
            }
        except table_files.Unreadable as error:
            raise BatchRefused(f"{self.where} cannot be read: {error}") from None
        try:
            rows = user_code.rows_function(self.model, model, partitions.wanted(self.name))(tables)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ModelCodeError(
                f"models/{self.model}/rows failed on {self.where}: {type(error).__name__}: {error}"
            ) from error
        files.write_parquet(target, self._typed(rows, model))
        return target

    def _typed(self, rows: pd.DataFrame, model: params.Model) -> pd.DataFrame:
        """The features as training has them, and what identifies a row."""
        import numpy as np

        from tasks.modelling.rows import as_feature, as_matrix

        kept = rows[[column for column in [*model.features, "id", "time"] if column in rows.columns]]
        for name, feature in model.features.items():
            kind, length = feature.type, feature.length or 0
            try:
                if kind == "vector" and (matrix := as_matrix(rows, name, length)) is not None:
                    lists: Any = [None if np.isnan(row).all() else row.tolist() for row in matrix]
                    kept = kept.assign(**{name: lists})
                elif kind != "vector" and name in kept:
                    kept = kept.assign(**{name: as_feature(kept[name], kind, feature.timezone or "UTC")})
            except (ValueError, TypeError, OverflowError) as error:
                raise ModelCodeError(f"models/{self.model}/rows, {self.where}: {name} is no {kind}: {error}") from None
        return kept


def _read(model: str, dataset: str, path: Path) -> pd.DataFrame:
    """A table that ingest may not have validated."""
    wanted = contract.load(model, dataset, path.stem)
    frame = table_files.read(path, wanted)
    if lacking := [name for name in wanted.columns if name not in frame and name not in wanted.optional]:
        raise BatchRefused(f"{dataset}/{path.name} has no column {', '.join(lacking)}")
    return contract.completed(frame, wanted)


def _code_digest(name: str) -> str:
    """What rows are made by, beside tables: code, contracts and options, as one hash."""
    model = params.load().model(name)
    contracts = [contract.path_of(name, dataset) for dataset in model.datasets]
    hashes = {path.relative_to(settings.ROOT).as_posix(): files.sha256(path) for path in contracts}
    hashes |= import_closure.hashes(f"models/{name}/rows")
    readings = {dataset: reading.model_dump() for dataset, reading in model.datasets.items()}
    return files.digest({"files": hashes, "options": model.options, "datasets": readings})


# ── chunks ────────────────────────────────────────────────────────────────────────────────────────

Features = Mapping[str, Mapping[str, Any]]
"""As release.json has them, in the order of its columns."""

_DECLARED = {
    "category": "str",
    "text": "str",
    "integer": "Int64",
    "number": "float64",
    "boolean": "boolean",
    "datetime": "datetime64[us]",
}
"""Type of a feature → as what a file's column is read, as a suite would declare it. A vector is a column of lists."""

_KINDS = {
    "category": "text",
    "text": "text",
    "integer": "integers",
    "number": "numbers",
    "boolean": "truth values",
    "datetime": "times",
    "vector": "lists of numbers (in a CSV there are none: use Parquet or .jsonl)",
}


def chunks(path: Path, shown: str, features: Features, keep: Sequence[str], size: int) -> Iterator[Chunk]:
    """A file of rows, in chunks of `size` rows (the last one may be smaller)."""
    try:
        if path.suffix in TABLES:
            yield from _of_size(_read_table(path, shown, features, keep, size), size)
        else:
            yield from _of_size(_read_json_lines(path, _kept_keys(path, features) if EVERY in keep else keep), size)
    except table_files.Unreadable as error:
        raise BatchRefused(f"{shown} cannot be read: {error}") from None


def _of_size(pieces: Iterator[Chunk], size: int) -> Iterator[Chunk]:
    """The same rows in chunks of one size, so that the parts of a batch do not depend on how a file was written."""
    import pyarrow as pa

    rows, kept = None, None
    for piece in pieces:
        rows = pa.concat_tables([rows, piece.rows], promote_options="permissive") if rows is not None else piece.rows
        kept = pa.concat_tables([kept, piece.kept]) if kept is not None else piece.kept
        while len(rows) >= size:
            yield Chunk(rows[:size], kept[:size], piece.done)
            rows, kept = rows[size:], kept[size:]
    if rows:
        yield Chunk(rows, kept, 1.0)


def _read_table(path: Path, shown: str, features: Features, keep: Sequence[str], size: int) -> Iterator[Chunk]:
    import pyarrow as pa

    kept = _kept_columns(table_files.names(path, [*features, *BESIDE, *keep]), shown, features, keep)
    if path.suffix == ".parquet":
        _refuse_other_kinds(path, shown, features)
    elif vectors := [name for name, feature in features.items() if feature["type"] == "vector"]:
        raise BatchRefused(f"{shown}: {vectors[0]} is a vector, which no CSV holds: use Parquet or .jsonl")
    for number, (rows, done) in enumerate(table_files.pieces(path, [*features, *kept], min(size, 50_000))):
        if not number:
            _refuse_codes_as_floats(rows, shown, features)
        beside = {name: rows.column(name) for name in kept}
        yield Chunk(_typed(rows, features), pa.table({ROW: pa.nulls(len(rows)), **beside}), done)


def taken(keep: Sequence[str]) -> list[str]:
    """Those of the columns to be kept that the answers have already."""
    return [name for name in keep if name in {*OWN, *LINEAGE} or answer_columns.is_prediction(name)]


def _is_taken(name: str) -> str:
    return f"column {name} is one of the answers too: rename it, or name in keep what goes along"


def _kept_columns(names: Sequence[str], shown: str, features: Features, keep: Sequence[str]) -> list[str]:
    """The columns that are kept; refuses the file when any is missing or not known, as a request would be."""
    others = [name for name in names if name not in features]
    problems = [f"column {name} is missing{hint(name, others)}" for name in features if name not in names]
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        problems.append(f"column {', '.join(twice)} stands twice")
    keep = [name for name in others if not _INDEX.fullmatch(name)] if EVERY in keep else keep
    problems += map(_is_taken, taken(keep))
    unknown = [name for name in others if name not in {*BESIDE, *keep} and not _INDEX.fullmatch(name)]
    problems += [f"column {name!r} is not known{hint(name, list(features))}{_HOW_TO_KEEP}" for name in unknown]
    problems += [f"column {name} is to be kept, but is not there" for name in keep if name not in names]
    if problems:
        more = f"; and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise BatchRefused(f"{shown}: {'; '.join(problems[:10])}{more}. Nothing of it was scored.")
    return [name for name in dict.fromkeys([*BESIDE, *keep]) if name in others]


_INDEX = re.compile("__index_level_[0-9]+__")
"""The index that pandas writes."""

_HOW_TO_KEEP = " (to take it along with the answers: `--keep COLUMN`, in a flow's form `keep`; '*' takes every one)"


def _refuse_other_kinds(path: Path, shown: str, features: Features) -> None:
    kinds = table_files.kinds(path)
    for name, feature in features.items():
        kind, type_ = kinds[name]
        if kind not in {"null", *_takes(feature["type"])}:
            wanted = _KINDS[feature["type"]]
            raise BatchRefused(
                f"{shown}: column {name} is of the type {type_}, the model takes {wanted}. Nothing was scored."
            )


def _takes(type_: str) -> set[str]:
    """Kinds of columns that a feature may be read from."""
    if type_ == "vector":
        return {"nested"}
    return conversions.TAKES[_DECLARED[type_]] | ({"zoned timestamp"} if type_ == "datetime" else set())


def _refuse_codes_as_floats(rows: pa.RecordBatch, shown: str, features: Features) -> None:
    """Refuse codes that a program held as floats, as ingest does: the model would know none of them."""
    for name, feature in features.items():
        if feature["type"] != "category" or str(feature["example"]).endswith(".0"):
            continue
        texts = conversions.convert(rows.column(name), "str")[0]
        if (row := conversions.held_as_floats(texts, conversions.PLAIN)) is not None:
            raise BatchRefused(
                f"{shown}: column {name}, row {row + 1}: «{texts[row].as_py()}», and every text of the column ends in "
                f"«.0»: a program held these codes as floats. Have it read them as text. Nothing was scored."
            )


def _typed(rows: pa.RecordBatch, features: Features) -> pa.Table:
    """Values as features. A row with one that is none becomes JSON: the release says what is wrong with it."""
    import orjson
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, Any] = {}
    broken = pa.array([False] * len(rows))
    for name, feature in features.items():
        if feature["type"] == "vector":
            columns[name] = rows.column(name)
            continue
        declared = _DECLARED[feature["type"]]
        if feature["type"] == "datetime" and conversions.kind_of(rows.column(name).type) == "zoned timestamp":
            declared = "datetime64[us, UTC]"
        columns[name], refused = conversions.convert(rows.column(name), declared)
        broken = broken if refused is None else pc.or_(broken, refused)
    table = pa.table(columns)
    if not pc.any(broken).as_py():
        return table
    texts: list[str | None] = [None] * len(rows)
    for i in pc.indices_nonzero(broken).to_pylist():
        row = {name: _as_json(values[i].as_py(), rows.column(name)[i].as_py()) for name, values in columns.items()}
        texts[i] = orjson.dumps(row).decode()
    return table.append_column("json", pa.array(texts, pa.string()))


def _as_json(value: Any, written: Any) -> Any:
    """A value as a client would post it; where it was refused, what stands in the file."""
    value = written if value is None else value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, (str, int, list)) or value is None else str(value)


def _read_json_lines(path: Path, keep: Sequence[str]) -> Iterator[Chunk]:
    """Each line is a row as a client would post it; the columns kept are taken out of it, as text."""
    import pyarrow as pa

    size = path.stat().st_size
    names = list(dict.fromkeys([*BESIDE, *keep]))
    with path.open("rb") as stream:
        while lines := stream.readlines(4_000_000):
            read = [_split_line(line, names) for line in lines if line.strip()]
            rows = pa.table({"json": pa.array([text for text, _ in read], pa.string())})
            kept = {name: pa.array([beside.get(name) for _, beside in read], pa.string()) for name in names}
            yield Chunk(rows, pa.table({ROW: pa.nulls(len(rows)), **kept}), stream.tell() / size)


def _kept_keys(path: Path, features: Features) -> list[str]:
    """Every key of a file of JSON lines that is no feature, in the order in which they first stand there."""
    import orjson

    keys: dict[str, None] = {}
    with path.open("rb") as stream:
        for line in stream:
            with suppress(orjson.JSONDecodeError):  # scoring says what is wrong with it
                row = orjson.loads(line)
                keys |= dict.fromkeys(row) if isinstance(row, dict) else {}
    kept = [key for key in keys if key not in features]
    for name in taken(kept):
        raise BatchRefused(f"{path.name}: {_is_taken(name)}. Nothing of it was scored.")
    return kept


def _split_line(line: bytes, names: Sequence[str]) -> tuple[str, dict[str, str | None]]:
    """A line without the columns kept, and those; a line that is no object stays as it is."""
    import orjson

    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        row = None
    if not isinstance(row, dict) or row.keys().isdisjoint(names):
        return line.strip().decode(errors="replace"), {}
    taken = {name: row.pop(name) for name in names if name in row}
    texts = {name: v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for name, v in taken.items()}
    return orjson.dumps(row).decode(), texts
