"""Batch scoring: files of rows, partitions or a bucket's prefix → Parquet, as the named release would answer.

The release's own code and model score in chunks (tasks/release/scorer.py). A chunk becomes a part: a Parquet file that
appears whole, names in its metadata what it was made of, and is not made again as long as that is the same. So a killed
run is continued by the next one, and the same inputs give the same bytes.

    <to>/<source>-<chunk>.parquet    row, the columns kept, its prediction or its problem, and its lineage
    <to>/_batch.json                 the sources that are done
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import addresses, files, params, paths
from tasks.ground.errors import Mistake
from tasks.ground.storage import Location
from tasks.ground.words import many
from tasks.journal import journal
from tasks.release.batch import batch_sources
from tasks.release.batch.batch_sources import BatchRefused, Chunk, Fetched, Source
from tasks.release.package import package
from tasks.release.scorer import Scorer

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 50_000
"""Rows that are scored at once: 350 MB in each of two processes, imports included, however long the source is."""

CHAMPION = "champion"

NOTE = "_batch.json"

FORMAT = 2
"""Of the parts: another one makes them anew."""

MOST_PROBLEMS = 20
"""Different problems that are reported of one part."""


@dataclass(frozen=True)
class BatchRelease:
    """The release that scores."""

    model: str
    candidate: str
    version: str | None
    """Its number in the registry, where it has one."""
    folder: Path

    @property
    def tag(self) -> str:
        """As online answers name it."""
        return f"{self.model}:{self.candidate}"

    def __str__(self) -> str:
        return f"version {self.version} (candidate {self.candidate})" if self.version else f"candidate {self.candidate}"


@dataclass
class BatchResult:
    """What a batch came to."""

    release: BatchRelease
    to: str
    rows: int = 0
    refused: int = 0
    """Rows without a prediction, with a problem."""
    made: int = 0
    reused: int = 0
    """Parts that were made, and that were there already."""
    problems: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    """Source → why it could not be scored at all."""

    def __str__(self) -> str:
        refused = f", {self.refused:,} refused" if self.refused else ""
        reused = f" ({many(self.reused, 'part was', 'parts were')} there already)" if self.reused else ""
        scored = f"{many(self.rows - self.refused, 'row')} scored{refused}"
        return f"{self.release.model}: {scored}, by {self.release}, in {self.to}{reused}"

    def add(self, part: dict[str, Any], *, made: bool) -> None:
        """Count a part: made now, or there already."""
        self.rows += part["rows"]
        self.refused += part["refused"]
        self.problems.update(part["problems"])
        self.made += made
        self.reused += not made

    def raise_for_failures(self) -> None:
        """Raise BatchRefused where a source could not be scored, or not one row could: that must not look well."""
        if self.failed:
            reasons = "\n".join(f"{name}: {why}" for name, why in list(self.failed.items())[:10])
            raise BatchRefused(
                f"{many(len(self.failed), 'source')} could not be scored:\n{reasons}\nThe others are in {self.to}."
            )
        if self.rows and self.rows == self.refused:
            problem, count = self.problems.most_common(1)[0]
            raise BatchRefused(f"none of the {self.rows:,} rows is valid; {count:,} of them: {problem}. See {self.to}.")


Log = Callable[[str], object]
Progress = Callable[[float, BatchResult], object]
"""Called with the share that is done, and what it came to so far."""


def score(
    name: str,
    source: str,
    to: str | None = None,
    version: str = CHAMPION,
    chunk: int = CHUNK,
    keep: Sequence[str] = (),
    log: Log = print,
    progress: Progress = lambda _, __: None,
) -> BatchResult:
    """Score what `source` names (see batch_sources.find), and put the parts into the folder `to`, or below var/batch.

    Args:
        name: the model.
        source: files, a partition, a folder or a bucket's prefix.
        to: a folder or a URL; parts of the same sources that are there are replaced if they differ.
        version: `champion`, another alias, a number of the registry, or a candidate.
        chunk: rows that are scored at once, and in one part.
        keep: columns of the source that are copied to the answers.
        log: is given a line for each thing that happens.
        progress: is called with how far it is.

    Raises:
        DataMissing: there is no such source, or no champion.
        Mistake: there is no such version; or `to` holds something else.
        SourceUnavailable: the source or `to` cannot be reached.
        StageFailed: the release cannot be loaded, or fails.
    """
    if chunk < 1:
        raise Mistake(f"a chunk has at least one row, not {chunk}")
    if taken := batch_sources.taken(keep):
        raise Mistake(f"keep: {', '.join(taken)} is a column of the answers already: rename it in the source")
    config = params.load()
    config.model(name)
    release = find_release(name, version)
    sources = batch_sources.find(name, config, source)
    place = Location.of(to or str(paths.batches() / name / release.candidate / _slug(addresses.masked(source))))
    log(f"{name}: {many(len(sources), 'source is', 'sources are')} scored by {release} into {place.shown}")
    lock = files.lock(lock_name(place))
    with lock, _scratch() as scratch, Scorer(release.folder, release.tag, scratch) as scorer:
        run = BatchRun(release, place, scorer, scratch, chunk, list(keep), log, progress)
        run.score_all(sources)
        _note(run.result, addresses.masked(source), place)
    return run.result


def _note(result: BatchResult, source: str, place: Location) -> None:
    """Have the journal say where the answers are; once, where nothing was made."""
    what = {"candidate": result.release.candidate, "version": result.release.version, "source": source}
    what |= {"to": str(place.local.resolve()) if place.local else addresses.masked(place.url)}
    written = [line.what for line in journal.lines(result.release.model, "batch")]
    if result.made or not any(what.items() <= line.items() for line in written):
        counts = {"rows": result.rows, "refused": result.refused, "made": result.made}
        journal.append(result.release.model, "batch", {**what, **counts})


def lock_name(place: Location) -> str:
    """The lock of a folder of answers, however it is written."""
    where = str(place.local.resolve()) if place.local else place.url
    return f"batch-{files.digest(where)[:16]}"


def find_release(name: str, version: str) -> BatchRelease:
    """The release of a version: from the Bento store, or from the registry where the store has lost it."""
    from tasks.release.registry import registry, version_files

    bento = package.stored(name, version) if re.fullmatch(r"[0-9a-f]{16}", version) else None
    if bento and registry.find(name, version) is None:
        return BatchRelease(name, version, None, bento / "src")
    resolved = registry.resolve(name, version)
    bento = package.stored(name, resolved.candidate)
    folder = bento / "src" if bento else version_files.fetch_cached(name, resolved) / "release"
    return BatchRelease(name, resolved.candidate, str(resolved.number), folder)


# ── a run ─────────────────────────────────────────────────────────────────────────────────────────


_PART = re.compile(r".+\.[0-9a-f]{8}-[0-9]{5}\.parquet")


@dataclass
class BatchRun:
    """Scores sources one after the other into parts, which lie at `place`."""

    release: BatchRelease
    place: Location
    scorer: Scorer
    scratch: Path
    chunk: int
    keep: list[str]
    log: Log
    progress: Progress

    def __post_init__(self) -> None:
        self.facts = package.release_facts(self.release.folder)
        made_by = {"format": FORMAT, "candidate": self.release.candidate, "version": self.release.version}
        self.recipe = files.digest({**made_by, "chunk": self.chunk, "keep": self.keep})
        self.result = BatchResult(self.release, self.place.shown)
        note = self.place / NOTE
        self.done: dict[str, Any] = json.loads(note.read()) if note.is_file() else {}
        """The sources that are done: name → key, tag, recipe and parts."""

    def score_all(self, sources: list[Source]) -> None:
        """Score them all; one that cannot be scored does not keep the others from it."""
        others = sorted(name for name in self._names() if name.endswith(".parquet") and not _PART.fullmatch(name))
        if others:
            raise Mistake(
                f"{self.place.shown} holds {others[0]}, which is no part of a batch: name another folder for `to`, as "
                f"whoever reads this one would read both"
            )
        sizes = {source.name: max(1, source.size) for source in sources}
        before, whole = 0, sum(sizes.values())
        for source in sources:
            begin, share = before / whole, sizes[source.name] / whole
            try:
                self._score(source, lambda done: self.progress(begin + share * done, self.result))  # noqa: B023 - called now
            except BatchRefused as error:
                self.result.failed[source.name] = str(error)
                self.log(f"{source.name}: {error}")
            before += sizes[source.name]
            self.progress(before / whole, self.result)

    def _score(self, source: Source, progress: Callable[[float], object]) -> None:
        done, tag = self.done.get(source.name), source.content_tag()
        if done and not {part["name"] for part in done["parts"]} <= self._names():
            done = None
        if done and tag and (done["tag"], done["recipe"]) == (tag, self.recipe):  # known without reading it
            return self._reuse(done["parts"])
        fetched = source.fetch(self.scratch)
        key = files.digest({"recipe": self.recipe, "data": fetched.data, "name": source.name})
        if done and done["key"] == key:
            return self._reuse(done["parts"])
        parts = list(_SourceRun(self, source, fetched, key).parts(progress))
        before = {name for name in self._names() if name.rpartition("-")[0] == _slug(source.name)}
        for name in before - {part["name"] for part in parts}:
            (self.place / name).remove()
        rows, refused = (sum(part[what] for part in parts) for what in ("rows", "refused"))
        self.log(
            f"{source.name}: {many(rows - refused, 'row')} scored, {refused:,} refused, {many(len(parts), 'part')}"
        )
        self.done[source.name] = {"key": key, "tag": tag, "recipe": self.recipe, "parts": parts}
        return self._write(NOTE, lambda path: files.write_json(path, self.done))

    def _reuse(self, parts: list[dict[str, Any]]) -> None:
        for part in parts:
            self.result.add(part, made=False)

    def _names(self) -> set[str]:
        return {name for name in self.place.files() if "/" not in name}

    def summary(self, name: str, key: str) -> dict[str, Any] | None:
        """The summary of a part, if it is there and was made of the same."""
        import pyarrow as pa
        from pyarrow import parquet

        part = self.place / name
        if not part.is_file():
            return None
        with part.open() as stream:
            try:
                metadata = parquet.read_metadata(stream).metadata or {}
            except pa.ArrowInvalid:  # no Parquet file, or half of one: an upload that a store did not make whole
                return None
        summary: dict[str, Any] = json.loads(metadata.get(b"evergreen.told", b"null"))
        return summary if metadata.get(b"evergreen.key", b"").decode() == key else None

    def put(self, name: str, table: pa.Table) -> None:
        """Write a part, whole or not at all."""
        from pyarrow import parquet

        encodings = {"row": "DELTA_BINARY_PACKED", "prediction_id": "DELTA_BYTE_ARRAY"}
        repeating = [path for path in _leaves(table.schema) if path not in encodings]
        how: dict[str, Any] = {"compression": "zstd", "use_dictionary": repeating, "column_encoding": encodings}
        self._write(name, lambda path: parquet.write_table(table, path, **how))

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        (self.place / name).write(write, paths.batches())


@dataclass
class _SourceRun:
    """One source on its way into parts."""

    run: BatchRun
    source: Source
    fetched: Fetched
    key: str

    def parts(self, progress: Callable[[float], object]) -> Iterator[dict[str, Any]]:
        """Make what is missing, in order, and give the parts' summaries; while one is scored, the next is read."""
        run, first = self.run, 0
        features = {name: run.facts["features"][name] for name in run.facts["columns"]}
        waiting: list[tuple[str, int, Chunk]] = []
        try:
            chunks = batch_sources.chunks(self.fetched.rows(), self.source.where, features, run.keep, run.chunk)
            for i, chunk in enumerate(chunks):
                name = f"{_slug(self.source.name)}-{i:05d}.parquet"
                existing = run.summary(name, self.key)
                if existing is None:
                    run.scorer.submit(name, chunk.rows)
                if waiting:
                    yield self._finish(*waiting.pop())
                if existing is None:
                    waiting.append((name, first, chunk))
                else:
                    run.result.add(existing, made=False)
                    yield existing
                first += len(chunk.rows)
                progress(chunk.done)
        except BatchRefused:
            for part in waiting:  # what was submitted is answered: the next source would take it for its own
                self._finish(*part)
            raise
        for part in waiting:
            yield self._finish(*part)
        if not first:
            raise BatchRefused(f"{self.source.where} holds no rows")

    def _finish(self, name: str, first: int, chunk: Chunk) -> dict[str, Any]:
        answers = self.run.scorer.result()
        problems = Counter(problem for problem in answers["problem"].to_pylist() if problem is not None)
        summary = {"name": name, "rows": len(answers), "refused": sum(problems.values())}
        summary["problems"] = dict(problems.most_common(MOST_PROBLEMS))
        self.run.put(name, self._table(first, chunk, answers, summary))
        self.run.result.add(summary, made=True)
        return summary

    def _table(self, first: int, chunk: Chunk, answers: pa.Table, summary: dict[str, Any]) -> pa.Table:
        import pyarrow as pa

        release, data = self.run.release, self.fetched.data
        origin = {"model": release.model, "version": release.version, "release": release.candidate}
        origin |= {"source": self.source.where, "data": data}
        numbers = range(first, first + len(answers))
        columns: dict[str, Any] = {"row": pa.array(numbers)}
        kept = chunk.kept.drop_columns(batch_sources.ROW)
        columns |= {name: table[name] for table in (kept, answers) for name in table.column_names}
        columns["prediction_id"] = pa.array(_ids(f"{release.candidate}/{data}", numbers))
        columns |= {name: pa.repeat(pa.scalar(value, pa.string()), len(answers)) for name, value in origin.items()}
        facts = {"key": self.key, "told": summary, **origin, "tag": release.tag}
        facts |= {"lineage": self.run.facts["lineage"], "made_of": self.fetched.facts}
        texts = {
            name: fact if isinstance(fact, str) else json.dumps(fact, sort_keys=True) for name, fact in facts.items()
        }
        return pa.table(columns).replace_schema_metadata({f"evergreen.{name}": text for name, text in texts.items()})


def _ids(origin: str, rows: range) -> Iterator[str]:
    """20 digits of the SHA-256 of the origin, then the row in 12: the same prediction has the same name for ever.

    What ids have in common is stored once (DELTA_BYTE_ARRAY); a hash of each row would be as large as its answers.
    """
    begin = hashlib.sha256(origin.encode()).hexdigest()[:20]
    return (f"{begin}{row:012x}" for row in rows)


def _leaves(schema: pa.Schema) -> list[str]:
    """The columns of a Parquet file of this schema, by path; of a list its elements."""
    from pyarrow import parquet

    with tempfile.TemporaryFile() as stream:
        parquet.write_table(schema.empty_table(), stream)
        leaves = parquet.read_metadata(stream).schema
    return [leaves.column(i).path for i in range(len(leaves))]


def _slug(name: str) -> str:
    """A name as that of a file, told apart from others that look alike by a digest."""
    plain = re.sub(r"[^A-Za-z0-9_.=-]+", "-", name.removesuffix("/")).strip("-.")[-60:].lstrip("-.")
    return f"{plain}.{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for intermediate files; what killed runs left is removed."""
    beside = paths.batches()
    beside.mkdir(parents=True, exist_ok=True)
    files.sweep(beside, below=False)
    with tempfile.TemporaryDirectory(dir=beside, prefix=f".aside.{os.getpid()}-", suffix=".tmp") as folder:
        yield Path(folder)
