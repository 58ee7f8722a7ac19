"""What a batch is made of: files of feature rows, or partitions of raw tables, here or in a bucket; in chunks.

A file of rows (.csv, .parquet, .jsonl) has the columns that a request has. A partition of a dataset has the raw tables:
models/<name>/rows makes features of it, as `prepare` does for training, and labels are left out.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from tasks.ground import files, import_closure, params, settings
from tasks.ground.errors import DataMissing, EvergreenError, Mistake, ModelCodeError, SourceUnavailable, WorldError
from tasks.ground.errors import did_you_mean as hint
from tasks.modelling import user_code
from tasks.tables import contract, conversions, table_files

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ROWS = (".csv", ".parquet", ".jsonl", ".ndjson")
TABLES = (".csv", ".parquet")
BESIDE = ("id", "time", "label")
"""Columns that a row may have beside its features (models/<name>/rows gives them), and that go along to its answer."""


class BatchRefused(WorldError):
    """What was to be scored cannot be: it has not the columns, cannot be read, or not one of its rows is valid."""


@dataclass(frozen=True)
class Chunk:
    """Some rows, as tasks/release/batch/worker.py takes them, and what goes along to their answers."""

    rows: pa.Table
    """The features; or `json`, a row as a client would post it; or both, where a value is not of its column's type."""
    along: pa.Table
    done: float
    """Which share of the source is read, after this chunk."""


class Source(Protocol):
    """One file, or one partition."""

    @property
    def name(self) -> str:
        """Where it is, below what was asked for."""

    @property
    def where(self) -> str:
        """Where it is, as it may be shown."""

    @property
    def size(self) -> int:
        """Bytes."""

    def look(self) -> str | None:
        """What tells that it is the same as at another look, without reading it; None when only reading it does."""

    def fetch(self, aside: Path) -> Fetched:
        """Bring it here, below a folder."""


@dataclass(frozen=True)
class Fetched:
    """A source that is here."""

    data: str
    """SHA-256 of what the rows are made of."""
    facts: dict[str, Any]
    """More of the same, for the auditor."""
    path: Path | None = None
    """The file of rows; None: `make` makes it."""
    make: Any = None

    def rows(self) -> Path:
        """The file of rows."""
        found: Path = self.path or self.make()
        return found


@dataclass(frozen=True)
class Place:
    """A file, a folder or a bucket's prefix, as fsspec reaches it."""

    fs: Any
    path: str
    url: str = field(repr=False)  # may hold credentials

    @classmethod
    def of(cls, url: str) -> Place:
        """What a URL or a path (relative ones are below the project) names."""
        from fsspec.core import url_to_fs

        with reaching(url):
            fs, path = url_to_fs(url if "://" in url else str(settings.ROOT / url))
        return cls(fs, path.rstrip("/"), url.rstrip("/"))

    @property
    def local(self) -> Path | None:
        """As a path, if it is on this machine."""
        protocols = self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)
        return Path(self.path) if "file" in protocols else None

    @property
    def shown(self) -> str:
        """As it may be shown: without credentials, and on this machine below the project."""
        if self.local and self.local.is_relative_to(settings.ROOT):
            return self.local.relative_to(settings.ROOT).as_posix()
        return masked(self.url)

    def child(self, name: str) -> Place:
        """What lies below."""
        return Place(self.fs, f"{self.path}/{name}", f"{self.url}/{name}")

    def files(self) -> dict[str, Place]:
        """Every file below that is not hidden or unfinished, by its path from here."""
        with reaching(self.url):
            self.fs.invalidate_cache()
            found = sorted(self.fs.find(self.path))
        names = [path.removeprefix(self.path).strip("/") for path in found]
        return {name: self.child(name) for name in names if not re.search(r"(^|/)[._]|\.(tmp|part)$", name)}

    def is_file(self) -> bool:
        """Whether it is a file."""
        with reaching(self.url):
            return bool(self.fs.isfile(self.path))

    def is_folder(self) -> bool:
        """Whether something lies below."""
        with reaching(self.url):
            return bool(self.fs.isdir(self.path))

    def size(self) -> int:
        """Bytes of a file."""
        with reaching(self.url):
            return int(self.fs.size(self.path) or 0)

    def tag(self) -> str | None:
        """A store's own tag of a file's content; None on this machine, where a file is hashed instead."""
        with reaching(self.url):
            return None if self.local else str(self.fs.ukey(self.path))

    def fetch(self, aside: Path) -> Path:
        """The file on this machine; brought below a folder when it is elsewhere."""
        if self.local:
            return self.local
        target = aside / hashlib.sha256(self.path.encode()).hexdigest()[:16] / PurePosixPath(self.path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        with reaching(self.url):
            self.fs.get_file(self.path, str(target))
        return target


# ── what is asked for ─────────────────────────────────────────────────────────────────────────────


def find(name: str, said: params.Params, source: str) -> list[Source]:
    """The sources that a person names, by their names.

    Args:
        name: the model.
        said: params.yaml.
        source: a file or a folder of rows, by path or URL; a partition: `<dataset>/<partition>`, or its file in data/
            or in the landing zone.

    Raises:
        DataMissing: there is nothing of that name.
    """
    model = said.model(name)
    raw = _partition(model, said, source)
    if raw is not None:
        return [Partition.of(name, model, said, raw)]
    place = Place.of(source)
    if place.is_file():
        _refuse_suffix(place.shown)
        return [File(PurePosixPath(place.path).name, place)]
    if place.is_folder():
        found: list[Source] = [File(n, one) for n, one in place.files().items() if n.endswith(ROWS)]
        if found:
            return found
        raise DataMissing(f"below {place.shown} lies no file to be scored ({', '.join(ROWS)})")
    known = [f"{dataset}/{p}" for dataset in model.datasets for p in _partitions(dataset)]
    raise DataMissing(
        f"there is no {place.shown}: name a file or a folder of rows, by path or URL, or a partition of the data, as "
        f"<dataset>/<partition>{hint(source, known) if known else ''}"
    )


def _partition(model: params.Model, said: params.Params, source: str) -> str | None:
    """Which partition is asked for, if one is."""
    parts = PurePosixPath(source)
    if re.fullmatch(r"[\w-]+/[\w-]+", source) and parts.parts[0] in model.datasets:
        return parts.name
    for home in ("data", said.landing):
        below = source.removeprefix(home.rstrip("/")).removeprefix(str(settings.ROOT / home))
        where = PurePosixPath(below.lstrip("/"))
        if below != source and len(where.parts) == 2 and where.parts[0] in model.datasets and where.suffix in TABLES:
            return where.stem
    return None


def _partitions(dataset: str) -> list[str]:
    return sorted(path.stem for path in (settings.ROOT / "data" / dataset).glob("*") if path.suffix in TABLES)


def _refuse_suffix(shown: str) -> None:
    suffix = PurePosixPath(shown).suffix
    if suffix not in ROWS:
        raise Mistake(
            f"{shown} is not a file of rows: its name ends in {suffix or 'nothing'}, not in {', '.join(ROWS)}"
        )


# ── a file of rows ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class File:
    """A file of rows."""

    name: str
    place: Place

    @property
    def where(self) -> str:  # noqa: D102
        return self.place.shown

    @property
    def size(self) -> int:  # noqa: D102
        return self.place.size()

    def look(self) -> str | None:  # noqa: D102
        return self.place.tag()

    def fetch(self, aside: Path) -> Fetched:  # noqa: D102
        path = self.place.fetch(aside)
        return Fetched(files.sha256(path), {}, path)


# ── a partition of raw tables ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Partition:
    """One partition of each of a model's datasets."""

    model: str
    name: str
    tables: dict[str, list[Place]]

    @classmethod
    def of(cls, name: str, model: params.Model, said: params.Params, partition: str) -> Partition:
        """Its tables, from data/, or from the landing zone what is not there yet."""
        tables = {
            dataset: _every_table(dataset) if how == "all" else [_table(dataset, partition, said)]
            for dataset, how in model.datasets.items()
        }
        return cls(name, partition, tables)

    @property
    def where(self) -> str:  # noqa: D102
        return ", ".join(place.shown for places in self.tables.values() for place in places)

    @property
    def size(self) -> int:  # noqa: D102
        return sum(place.size() for places in self.tables.values() for place in places)

    def look(self) -> str | None:  # noqa: D102
        return None

    def fetch(self, aside: Path) -> Fetched:  # noqa: D102
        here = {dataset: [place.fetch(aside) for place in places] for dataset, places in self.tables.items()}
        tables = {dataset: {path.name: files.sha256(path) for path in paths} for dataset, paths in here.items()}
        made_by = _code(self.model)
        data = files.digest({"tables": tables, "code": made_by})
        return Fetched(data, {"tables": tables, "code": made_by}, make=lambda: self._make(here, aside))

    def _make(self, here: dict[str, list[Path]], aside: Path) -> Path:
        import pandas as pd

        from tasks.modelling.rows import as_feature

        model = params.load().model(self.model)
        asked = {d: [(path, contract.load(self.model, d, path.stem)) for path in paths] for d, paths in here.items()}
        try:
            tables = {
                dataset: pd.concat([_read(dataset, path, wanted) for path, wanted in asked[dataset]], ignore_index=True)
                for dataset in here
            }
        except table_files.Unreadable as error:
            raise BatchRefused(f"{self.where} cannot be read: {error}") from None
        try:
            rows = user_code.rows_function(self.model, model)(tables)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ModelCodeError(
                f"models/{self.model}/rows failed on {self.where}: {type(error).__name__}: {error}"
            ) from error
        kept = rows[[column for column in [*model.features, "id", "time"] if column in rows.columns]]
        for name, feature in model.features.items():
            try:
                kept = kept.assign(**{name: as_feature(kept[name], feature.type)}) if name in kept else kept
            except (ValueError, TypeError, OverflowError) as error:
                raise ModelCodeError(
                    f"models/{self.model}/rows, {self.where}: {name} is no {feature.type}: {error}"
                ) from None
        target = aside / f"{self.name}.parquet"
        files.write_parquet(target, kept)
        return target


def _read(dataset: str, path: Path, wanted: contract.Contract) -> pd.DataFrame:
    """A table that no ingest may have looked at."""
    frame = table_files.read(path, wanted)
    if lacking := [name for name in wanted.columns if name not in frame and name not in wanted.optional]:
        raise BatchRefused(f"{dataset}/{path.name} has no column {', '.join(lacking)}")
    return contract.completed(frame, wanted)


def _table(dataset: str, partition: str, said: params.Params) -> Place:
    for home in ("data", said.landing):
        for suffix in TABLES:
            place = Place.of(f"{home.rstrip('/')}/{dataset}/{partition}{suffix}")
            if place.is_file():
                return place
    near = hint(partition, _partitions(dataset))
    raise DataMissing(f"{dataset}/{partition} is neither in data/ nor in the landing zone {masked(said.landing)}{near}")


def _every_table(dataset: str) -> list[Place]:
    return [
        Place.of(f"data/{dataset}/{path.name}")
        for path in sorted((settings.ROOT / "data" / dataset).glob("*"))
        if path.suffix in TABLES
    ]


def _code(name: str) -> str:
    """What rows are made by, beside tables: code, contracts and options, as one hash."""
    root, model = settings.ROOT, params.load().model(name)
    sources = import_closure.closure(root / "models" / name / "rows" / "__init__.py", root)
    own = (root / "models" / name / "rows").rglob("*")
    sources |= {path for path in own if path.is_file() and "__pycache__" not in path.parts}
    sources |= {contract.path_of(name, dataset) for dataset in model.datasets}
    hashes = {path.relative_to(root).as_posix(): files.sha256(path) for path in sources}
    return files.digest({"files": hashes, "options": model.options})


# ── chunks ────────────────────────────────────────────────────────────────────────────────────────

Features = Mapping[str, Mapping[str, Any]]
"""As release.json has them, in the order of its columns."""


def chunks(path: Path, shown: str, features: Features, keep: Sequence[str], most: int) -> Iterator[Chunk]:
    """A file of rows, in chunks of `most` rows (the last one may be smaller).

    Raises:
        BatchRefused: a column is missing, not known or of another type; or the file cannot be read.
    """
    read = _json_lines if path.suffix not in TABLES else _columns
    try:
        yield from _of_size(read(path, shown, features, keep, most), most)
    except table_files.Unreadable as error:
        raise BatchRefused(f"{shown} cannot be read: {error}") from None


def _of_size(found: Iterator[Chunk], most: int) -> Iterator[Chunk]:
    """The same rows in chunks of one size, so that the parts of a batch do not depend on how a file was written."""
    import pyarrow as pa

    waiting: list[Chunk] = []
    for chunk in found:
        waiting.append(chunk)
        while sum(len(one.rows) for one in waiting) >= most:
            rows = pa.concat_tables([one.rows for one in waiting], promote_options="permissive")
            along = pa.concat_tables([one.along for one in waiting])
            yield Chunk(rows[:most], along[:most], chunk.done)
            waiting = [Chunk(rows[most:], along[most:], chunk.done)]
    if sum(len(one.rows) for one in waiting):
        rows = pa.concat_tables([one.rows for one in waiting], promote_options="permissive")
        yield Chunk(rows, pa.concat_tables([one.along for one in waiting]), 1.0)


_DECLARED = {"category": "str", "integer": "Int64", "number": "float64"}
"""Type of a feature → as what a file's column is read, as a suite would declare it."""

_KINDS = {"category": "text", "integer": "integers", "number": "numbers"}


def _columns(path: Path, shown: str, features: Features, keep: Sequence[str], most: int) -> Iterator[Chunk]:
    """CSV and Parquet, read as ingest reads them."""
    along = _check_columns(table_files.names(path, [*features, *BESIDE, *keep]), shown, features, keep)
    if path.suffix == ".parquet":
        _check_kinds(path, shown, features)
    for number, piece in enumerate(table_files.pieces(path, [*features, *along], min(most, 50_000))):
        if not number:
            _refuse_codes_as_floats(piece.rows, shown, features)
        beside = _tabled({name: piece.rows.column(name) for name in along}, len(piece.rows))
        yield Chunk(_typed(piece.rows, features), beside, piece.done)


def _check_kinds(path: Path, shown: str, features: Features) -> None:
    found = table_files.kinds(path)
    for name, feature in features.items():
        kind, type_ = found[name]
        if kind not in {"null", *conversions.TAKES[_DECLARED[feature["type"]]]}:
            wanted = _KINDS[feature["type"]]
            raise BatchRefused(
                f"{shown}: column {name} is of the type {type_}, the model takes {wanted}. Nothing was scored."
            )


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
        columns[name], refused = conversions.convert(rows.column(name), _DECLARED[feature["type"]])
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
    return value if isinstance(value, (str, int)) or value is None else str(value)


def _json_lines(path: Path, shown: str, features: Features, keep: Sequence[str], most: int) -> Iterator[Chunk]:  # noqa: ARG001
    """Each line is a row as a client would post it; what goes along is taken out of it, as text."""
    import pyarrow as pa

    size = path.stat().st_size
    names = list(dict.fromkeys([*BESIDE, *keep]))
    with path.open("rb") as stream:
        while lines := stream.readlines(4_000_000):
            read = [_taken_out(line, names) for line in lines if line.strip()]
            along = {name: pa.array([beside.get(name) for _, beside in read], pa.string()) for name in names}
            rows = pa.table({"json": pa.array([text for text, _ in read], pa.string())})
            yield Chunk(rows, _tabled(along, len(rows)), stream.tell() / size)


def _taken_out(line: bytes, names: Sequence[str]) -> tuple[str, dict[str, str | None]]:
    """A line without what goes along, and that; a line that is no object stays as it is."""
    import orjson

    text = line.strip().decode(errors="replace")
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return text, {}
    if not isinstance(row, dict) or not any(name in row for name in names):
        return text, {}
    taken = {name: row.pop(name) for name in names if name in row}
    said = {name: v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for name, v in taken.items()}
    return orjson.dumps(row).decode(), said


def _check_columns(names: Sequence[str], shown: str, features: Features, keep: Sequence[str]) -> list[str]:
    """The columns that go along; refuses the file when any is missing or not known, as a request would be."""
    said = [
        f"column {name} is missing{hint(name, [n for n in names if n not in features])}"
        for name in features
        if name not in names
    ]
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        said.append(f"column {', '.join(twice)} stands twice")
    known = {*features, *BESIDE, *keep}
    strange = [
        name for name in names if name not in known and not re.fullmatch("__index_level_[0-9]+__", name)
    ]  # pandas
    said += [f"column {n!r} is not known{hint(n, list(features))} (to take it along, name it in keep)" for n in strange]
    said += [f"column {name} is to be kept, but is not there" for name in keep if name not in names]
    if said:
        more = f"; and {len(said) - 10} more" if len(said) > 10 else ""
        raise BatchRefused(f"{shown}: {'; '.join(said[:10])}{more}. Nothing of it was scored.")
    return [name for name in dict.fromkeys([*BESIDE, *keep]) if name in names and name not in features]


def _tabled(columns: Mapping[str, Any], rows: int) -> pa.Table:
    """A table, also when it has rows but no column."""
    import pyarrow as pa

    held = {PLACE: pa.nulls(rows), **columns}
    return pa.table(held)


PLACE = "row"
"""Which row of the source it is, from 0. (Here it only says how many there are.)"""


# ── stores ────────────────────────────────────────────────────────────────────────────────────────


def masked(text: str) -> str:
    """A text as it may be shown: without what stands before the @ of the URLs in it."""
    return re.sub(r"://[^/@]*@", "://***@", text)


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Whatever a store's own client raises, said as one error."""
    try:
        yield
    except EvergreenError:
        raise
    except Exception as error:  # every store has its own client with its own exceptions; none is swallowed
        said = " ".join(str(error).split()) or type(error).__name__
        for secret in re.findall(r"://([^/@]*)@", url):
            said = said.replace(secret, "***")
        raise SourceUnavailable(
            f"{masked(url)} cannot be reached: {masked(said)}. Check the address, the network and the credentials, "
            f"then run again: what was scored stays"
        ) from error
