"""Batch scoring: files of rows, partitions or a bucket's prefix → Parquet, as the release that is named would answer.

The release's own code and model score (tasks/release/batch/worker.py, in an interpreter of its own), in chunks. A chunk
becomes a part: a Parquet file that appears whole, names in its metadata what it was made of, and is not made again as
long as that is the same. So a run that was killed is continued by the next, and the same inputs give the same bytes.

    <to>/<source>-<chunk>.parquet    row, what goes along with it, its prediction or its problem, and its lineage
    <to>/_batch.json                 the sources that are done
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, params, paths, settings
from tasks.ground.errors import DataMissing, Mistake, StageFailed, did_you_mean
from tasks.release.batch import batch_sources, worker
from tasks.release.batch.batch_sources import BatchRefused, Chunk, Fetched, Place, Source, reaching
from tasks.release.package import package

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 50_000
"""Rows that are scored at once: 350 MB in each of two processes, imports included, however long the source is."""

CHAMPION = "champion"

NOTE = "_batch.json"

FORMAT = 1
"""Of the parts: another one makes them anew."""

OWN = ("row", "prediction", "probability", "low", "high", "unseen", "problem")
LINEAGE = ("prediction_id", "model", "version", "release", "source", "data")
"""The columns of a part, beside `p_<class>` and those that go along."""

MOST_PROBLEMS = 20
"""Different problems that are told of one part."""


@dataclass(frozen=True)
class Release:
    """Who scores."""

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
class Scored:
    """What a batch came to."""

    release: Release
    to: str
    rows: int = 0
    refused: int = 0
    """Rows without a prediction, with a problem."""
    made: int = 0
    found: int = 0
    """Parts that were made, and that were there already."""
    problems: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    """Sources that could not be scored at all, with the reason."""

    def __str__(self) -> str:
        refused = f", {self.refused:,} refused" if self.refused else ""
        there = f" ({self.found} parts were there already)" if self.found else ""
        done = f"{self.rows - self.refused:,} rows scored{refused}, by {self.release}, in {self.to}{there}"
        return f"{self.release.model}: {done}"

    def check(self) -> None:
        """To be called when all is told.

        Raises:
            BatchRefused: a source could not be scored, or not one row could.
        """
        if self.failed:
            told = "\n".join(f"{name}: {why}" for name, why in list(self.failed.items())[:10])
            raise BatchRefused(f"{len(self.failed)} sources could not be scored:\n{told}\nThe others are in {self.to}.")
        if self.rows and self.rows == self.refused:
            problem, count = self.problems.most_common(1)[0]
            raise BatchRefused(f"none of the {self.rows:,} rows is valid; {count:,} of them: {problem}. See {self.to}.")


Tell = Callable[[str], object]
Progress = Callable[[float, Scored], object]
"""Is told which share is done, and what it came to so far."""


def score(
    name: str,
    source: str,
    to: str | None = None,
    version: str = CHAMPION,
    chunk: int = CHUNK,
    keep: Sequence[str] = (),
    tell: Tell = print,
    progress: Progress = lambda _, __: None,
) -> Scored:
    """Score what `source` names (see batch_sources.find), and put the parts into the folder `to`, or below var/batch.

    Args:
        name: the model.
        source: files, a partition, a folder or a bucket's prefix.
        to: a folder or a URL; parts of the same sources that are there are replaced if they differ.
        version: `champion`, another alias, a number of the registry, or a candidate.
        chunk: rows that are scored at once, and in one part.
        keep: columns of the source that go along to the answers.
        tell: is told what happens.
        progress: is told how far it is.

    Raises:
        DataMissing: there is no such source, or no champion.
        Mistake: there is no such version; or `to` holds something else.
        SourceUnavailable: the source or `to` cannot be reached.
        StageFailed: the release cannot be loaded, or fails.
    """
    if chunk < 1:
        raise Mistake(f"a chunk has at least one row, not {chunk}")
    if taken := [column for column in keep if column in {*OWN, *LINEAGE} or column.startswith("p_")]:
        raise Mistake(f"keep: {', '.join(taken)} is a column of the answers already: rename it in the source")
    said = params.load()
    said.model(name)
    release = find_release(name, version)
    sources = batch_sources.find(name, said, source)
    target = Target(Place.of(to or f"var/batch/{name}/{release.candidate}/{_slug(batch_sources.masked(source))}"))
    tell(f"{name}: {len(sources)} sources are scored by {release} into {target.place.shown}")
    with (
        files.lock(f"batch-{files.digest(target.place.url)[:16]}"),
        _aside() as aside,
        _Scorer(release, aside) as scorer,
    ):
        target.refuse_others()
        run = _Run(release, target, scorer, aside, chunk, list(keep), tell, progress)
        run.all(sources)
    return run.scored


def find_release(name: str, version: str) -> Release:
    """The release of a version: from the Bento store, or from the registry where that has lost it.

    Raises:
        DataMissing: there is no champion.
        Mistake: there is no such version.
    """
    from tasks.release.registry import registry

    entries = {str(entry.version): entry for entry in registry.history(name)}
    found = next((e for e in entries.values() if version in {*e.aliases, str(e.version), e.candidate}), None)
    if version == CHAMPION:
        champion = registry.champion(name)
        if champion is None:
            raise DataMissing(f"{name} has no champion yet: train it (evergreen train {name}), or name a version")
        found = entries[str(champion.number)]
    candidate = found.candidate if found else version
    number = str(found.version) if found else None
    is_candidate = re.fullmatch(r"[0-9a-f]{16}", candidate)
    if bento := package.stored(name, candidate) if is_candidate else None:
        return Release(name, candidate, number, bento / "src")
    if found is None:
        known = [*entries, *sorted({alias for entry in entries.values() for alias in entry.aliases})]
        raise Mistake(f"{name} has no version or candidate {version!r}{did_you_mean(version, known)}")

    wanted = registry.ModelVersion(name, found.version, candidate, found.run_id, found.created)
    return Release(name, candidate, number, registry.fetch_cached(name, wanted) / "release")


# ── a run ─────────────────────────────────────────────────────────────────────────────────────────


class _Run:
    """Scores sources one after the other."""

    def __init__(
        self,
        release: Release,
        target: Target,
        scorer: _Scorer,
        aside: Path,
        chunk: int,
        keep: list[str],
        tell: Tell,
        progress: Progress,
    ) -> None:
        self.release, self.target, self.scorer, self.aside = release, target, scorer, aside
        self.chunk, self.keep, self.tell, self.progress = chunk, keep, tell, progress
        self.facts = package.release_facts(release.folder)
        self.features = {name: self.facts["features"][name] for name in self.facts["columns"]}
        made_by = {"format": FORMAT, "candidate": release.candidate, "version": release.version}
        self.recipe = files.digest({**made_by, "chunk": chunk, "keep": keep})
        self.scored = Scored(release, target.place.shown)
        self.note = target.note()

    def all(self, sources: list[Source]) -> None:
        """Score them all; one that cannot be scored does not keep the others from it."""
        sizes = {source.name: max(1, source.size) for source in sources}
        before, whole = 0, sum(sizes.values())
        for source in sources:
            begin, share = before / whole, sizes[source.name] / whole
            try:
                self._one(source, lambda done: self.progress(begin + share * done, self.scored))  # noqa: B023 - called now
            except BatchRefused as error:
                self.scored.failed[source.name] = str(error)
                self.tell(f"{source.name}: {error}")
            before += sizes[source.name]
            self.progress(before / whole, self.scored)

    def _one(self, source: Source, progress: Callable[[float], object]) -> None:
        noted = self.note.get(source.name)
        tag = source.look()
        if tag and noted and (noted["tag"], noted["recipe"]) == (tag, self.recipe) and self._is_there(noted):
            return self._count(noted)
        fetched = source.fetch(self.aside)
        key = files.digest({"recipe": self.recipe, "data": fetched.data, "name": source.name})
        if noted and noted["key"] == key and self._is_there(noted):
            return self._count(noted)
        parts = list(self._parts(source, fetched, key, progress))
        self.target.remove(set(self.target.of(source.name)) - {part["name"] for part in parts})
        rows, refused = (sum(part[what] for part in parts) for what in ("rows", "refused"))
        self.tell(f"{source.name}: {rows - refused:,} rows scored, {refused:,} refused, {len(parts)} parts")
        self.note[source.name] = {"key": key, "tag": tag, "recipe": self.recipe, "parts": parts}
        self.target.write_note(self.note)
        return None

    def _is_there(self, noted: dict[str, Any]) -> bool:
        return {part["name"] for part in noted["parts"]} <= self.target.names()

    def _count(self, noted: dict[str, Any]) -> None:
        for part in noted["parts"]:
            self._add(part, made=False)

    def _add(self, part: dict[str, Any], *, made: bool) -> dict[str, Any]:
        self.scored.rows += part["rows"]
        self.scored.refused += part["refused"]
        self.scored.problems.update(part["problems"])
        self.scored.made += made
        self.scored.found += not made
        return part

    def _parts(
        self, source: Source, fetched: Fetched, key: str, progress: Callable[[float], object]
    ) -> Iterator[dict[str, Any]]:
        """Make what is missing, in order; while one chunk is scored, the next is read."""
        waiting: _Part | None = None
        first = 0
        try:
            rows = fetched.rows()
            for i, chunk in enumerate(batch_sources.chunks(rows, source.where, self.features, self.keep, self.chunk)):
                part = _Part(f"{_slug(source.name)}-{i:05d}.parquet", source, fetched, key, first, chunk, self.release)
                first += len(chunk.rows)
                held = self.target.held(part.name, key)
                if held is None:
                    self.scorer.prepare(part.name, chunk.rows)
                if waiting:
                    done, waiting = waiting, None
                    yield self._finish(done)
                if held is None:
                    self.scorer.ask(part.name)
                    waiting = part
                else:
                    yield self._add(held, made=False)
                progress(chunk.done)
        except BatchRefused:
            if waiting:  # what was asked is answered: the next source would take it for its own
                self._finish(waiting)
            raise
        if waiting:
            yield self._finish(waiting)
        if not first:
            raise BatchRefused(f"{source.where} holds no rows")

    def _finish(self, part: _Part) -> dict[str, Any]:
        told, table = part.table(self.scorer.answer(), self.facts["lineage"])
        self.target.put(part.name, table)
        return self._add(told, made=True)


@dataclass(frozen=True)
class _Part:
    """A chunk, and where its answers go."""

    name: str
    source: Source
    fetched: Fetched
    key: str
    first: int
    chunk: Chunk
    release: Release

    def table(self, answers: pa.Table, lineage: Any) -> tuple[dict[str, Any], pa.Table]:
        """What is told of the part; and the part: answers with what goes along, and where they come from."""
        import numpy as np
        import pyarrow as pa

        n, end = len(answers), self.first + len(answers)
        columns: dict[str, Any] = {"row": pa.array(np.arange(self.first, end))}
        along = self.chunk.along
        columns |= {name: along[name] for name in along.column_names if name != batch_sources.PLACE}
        columns |= {name: answers[name] for name in answers.column_names}
        columns["prediction_id"] = pa.array([self._id(row) for row in range(self.first, end)])
        names = {"model": self.release.model, "version": self.release.version, "release": self.release.candidate}
        for name, value in {**names, "source": self.source.where, "data": self.fetched.data}.items():
            columns[name] = pa.repeat(pa.scalar(value, pa.string()), n)
        problems = Counter(one for one in answers["problem"].to_pylist() if one is not None)
        told = {"name": self.name, "rows": n, "refused": sum(problems.values())}
        told["problems"] = dict(problems.most_common(MOST_PROBLEMS))
        facts = {"tag": self.release.tag, "lineage": lineage, "made_of": self.fetched.facts}
        said = {"key": self.key, "told": told, **names, "source": self.source.where, "data": self.fetched.data, **facts}
        metadata = {
            f"evergreen.{k}": v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in said.items()
        }
        return told, pa.table(columns).replace_schema_metadata(metadata)

    def _id(self, row: int) -> str:
        """The same prediction has the same name for ever: it is made of the release, the data and the row."""
        text = f"{self.release.candidate}/{self.fetched.data}/{row}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _slug(name: str) -> str:
    """A name as that of a file, told apart from others that look alike by a digest."""
    plain = re.sub(r"[^A-Za-z0-9_.=-]+", "-", name.removesuffix("/")).strip("-.")[-60:].lstrip("-.")
    return f"{plain}.{hashlib.sha256(name.encode()).hexdigest()[:8]}"


@contextmanager
def _aside() -> Iterator[Path]:
    """A folder for what is under way; what killed runs left is removed."""
    beside = paths.batch_scratch()
    beside.mkdir(parents=True, exist_ok=True)
    files.sweep(beside, below=False)
    with tempfile.TemporaryDirectory(dir=beside, prefix=f".aside.{os.getpid()}-", suffix=".tmp") as folder:
        yield Path(folder)


# ── who scores ────────────────────────────────────────────────────────────────────────────────────


class _Scorer:
    """An interpreter with the release's code and model, and no other; started when it is needed."""

    def __init__(self, release: Release, aside: Path) -> None:
        self.release, self.aside = release, aside
        self.process: subprocess.Popen[str] | None = None
        self.asked = ""

    def __enter__(self) -> _Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()

    def prepare(self, name: str, rows: pa.Table) -> None:
        """Lay the rows of a chunk where they are found."""
        from pyarrow import parquet

        parquet.write_table(rows, self.aside / f"rows-{name}", compression="none")

    def ask(self, name: str) -> None:
        """Have a chunk that was prepared scored."""
        process = self._running()
        self.asked = name
        task = {"rows": str(self.aside / f"rows-{name}"), "to": str(self.aside / f"answers-{name}")}
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._failed() from None

    def answer(self) -> pa.Table:
        """The answers to what was asked.

        Raises:
            StageFailed: the release failed.
        """
        from pyarrow import parquet

        process = self._running()
        assert process.stdout is not None
        if not process.stdout.readline():
            raise self._failed()
        rows, answers = (self.aside / f"{what}-{self.asked}" for what in ("rows", "answers"))
        table = parquet.read_table(answers)
        rows.unlink()
        answers.unlink()
        return table

    def _running(self) -> subprocess.Popen[str]:
        if self.process is None:
            self.process = _interpreter(self.release.folder, self.aside / "stderr")
        return self.process

    def _failed(self) -> StageFailed:
        said = (self.aside / "stderr").read_text(encoding="utf-8", errors="replace").strip()[-3000:]
        return StageFailed(f"{self.release.tag} could not score {self.asked}:\n{said}")


def _interpreter(folder: Path, log: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    with log.open("w") as stderr:
        return subprocess.Popen(
            [sys.executable, "-I", str(Path(worker.__file__)), str(folder)],
            stdin=pipe,
            stdout=pipe,
            stderr=stderr,
            text=True,
            encoding="utf-8",
            env={**settings.environment(), **os.environ},
        )


# ── where it goes ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Target:
    """A folder or a bucket's prefix with the parts of a batch."""

    place: Place

    def refuse_others(self) -> None:
        """Stop before a part lies between files that are none.

        Raises:
            Mistake: there are.
        """
        others = sorted(name for name in self.names() if name.endswith(".parquet") and not _PART.fullmatch(name))
        if others:
            raise Mistake(
                f"{self.place.shown} holds {others[0]}, which is no part of a batch: name another folder for `to`, as "
                f"whoever reads this one would read both"
            )

    def names(self) -> set[str]:
        """The files that are there."""
        return {name for name in self.place.files() if "/" not in name}

    def of(self, source: str) -> list[str]:
        """The parts of a source."""
        return [name for name in self.names() if name.rpartition("-")[0] == _slug(source)]

    def held(self, name: str, key: str) -> dict[str, Any] | None:
        """What is told of a part, if it is there and was made of the same."""
        import pyarrow as pa
        from pyarrow import parquet

        part = self.place.child(name)
        if not part.is_file():
            return None
        with reaching(part.url), part.fs.open(part.path, "rb") as stream:
            try:
                said = parquet.read_metadata(stream).metadata or {}
            except pa.ArrowInvalid:  # no Parquet file, or half of one: an upload that a store did not make whole
                return None
        told: dict[str, Any] = json.loads(said.get(b"evergreen.told", b"null"))
        return told if said.get(b"evergreen.key", b"").decode() == key else None

    def put(self, name: str, table: pa.Table) -> None:
        """Write a part, whole or not at all."""
        from pyarrow import parquet

        self._put(name, lambda path: parquet.write_table(table, path, compression="zstd"))

    def note(self) -> dict[str, Any]:
        """The sources that are done: name → key, tag and parts."""
        place = self.place.child(NOTE)
        if not place.is_file():
            return {}
        with reaching(place.url):
            held: dict[str, Any] = json.loads(place.fs.cat_file(place.path))
        return held

    def write_note(self, note: dict[str, Any]) -> None:
        """Note the sources that are done."""
        self._put(NOTE, lambda path: files.write_json(path, note))

    def remove(self, names: set[str]) -> None:
        """Remove parts that are no more."""
        for name in names:
            with reaching(self.place.url):
                self.place.fs.rm_file(self.place.child(name).path)

    def _put(self, name: str, write: Callable[[Path], object]) -> None:
        place = self.place.child(name)
        if place.local:
            with settings.for_others(Path(place.local)), files.replacing(place.local) as beside:
                write(beside)
            return
        with tempfile.TemporaryDirectory(
            dir=paths.batch_scratch(), prefix=f".aside.{os.getpid()}-", suffix=".tmp"
        ) as f:
            write(Path(f) / "part")
            with reaching(place.url):
                place.fs.put_file(str(Path(f) / "part"), place.path)


_PART = re.compile(r".+\.[0-9a-f]{8}-[0-9]{5}\.parquet")
