"""What must hold when a project is at rest: looked at from outside, in the files and in MLflow's tables.

No code of the product is asked, so that it cannot confirm itself; except for the hash of a release folder.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from tests.loop.world import Delivery, World, load


@dataclass(frozen=True)
class Fault:
    """Something that must not be. Kind: lost, doubled or half."""

    kind: str
    said: str


def faults(world: World) -> list[Fault]:
    """Everything that is wrong with a project at rest."""
    found = [*_data(world), *_versioned(world), *_graph(world), *_leftovers(world)]
    with closing(sqlite3.connect(f"file:{world.root}/var/mlflow/mlflow.db?mode=ro", uri=True)) as database:
        return found + list(_registry(world, Store(database)))


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# ── deliveries ────────────────────────────────────────────────────────────────────────────────────


def data(root: Path) -> dict[str, str]:
    """The files in data/ → MD5."""
    return {name: _md5(root / "data" / name) for name in _below(root / "data")}


def _data(world: World) -> Iterator[Fault]:
    """Every valid partition once in data/, the others in quarantine with their reports, nothing in the landing zone."""
    there = data(world.root)
    refused, quarantine = _quarantined(world.root)
    yield from quarantine
    yield from (Fault("lost", f"{name} lies in the landing zone still") for name in _below(world.root / "var/landing"))
    for name, md5 in world.by_hand.items():
        if there.get(f"readings/{name}") != md5:
            yield Fault("lost", f"{name}, put by hand, is not in data/")
    for name, count in Counter(Path(name).stem for name in there).items():
        if count > 1:
            yield Fault("doubled", f"{name} is in data/ {count} times")
    known = {f"readings/{name}" for name in world.by_hand}
    for stem in sorted({one.stem for one in world.deliveries}):
        sent = [one for one in world.deliveries if one.stem == stem]
        path = f"readings/{stem}.csv"
        known.add(path)
        yield from _partition(stem, sent, there.get(path), revisions(world.root).get(f"readings/{stem}"), refused)
    yield from (Fault("half", f"data/{name} was never delivered") for name in there if name not in known)


def _partition(
    stem: str, sent: list[Delivery], held: str | None, ledger: list[str] | None, refused: dict[str, int]
) -> Iterator[Fault]:
    """What became of everything that was delivered under one name."""
    possible = _histories([one for one in sent if one.valid])
    history = tuple(ledger or ([held] if held else []))
    if history not in possible:
        short, expected = ([md5[:8] for md5 in each] for each in (history, min(possible)))
        yield Fault("half" if history else "lost", f"{stem} has the revisions {short}, expected, say, {expected}")
    if held != (history[-1] if history else None):
        yield Fault("half" if held else "lost", f"{stem} in data/ is {held}, its last revision is {history[-1:]}")
    if held is not None and refused.get(held, 0):
        yield Fault("doubled", f"{stem} ({held[:8]}) is in data/ and in quarantine")
    for one in sent:
        if not one.valid and not one.overwritten[0] and not refused.get(one.md5):
            yield Fault("lost", f"{one.path} ({one.md5[:8]}) is invalid and not in quarantine")
        if not one.valid and one.md5 in history:
            yield Fault("half", f"{one.path} ({one.md5[:8]}) is invalid and a revision")


def _histories(valid: list[Delivery]) -> set[tuple[str, ...]]:
    """What the revisions of a partition may be: one that was overwritten where it landed may have been taken in before.

    A content that was there before does not come back by a delivery.
    """
    histories: set[tuple[str, ...]] = {()}
    for one in valid:
        taken = {history if one.md5 in history else (*history, one.md5) for history in histories}
        histories = taken | histories if one.overwritten[0] else taken
    return histories


def _quarantined(root: Path) -> tuple[dict[str, int], list[Fault]]:
    """MD5 → how often it is in quarantine; and the folders there that are not whole."""
    held: Counter[str] = Counter()
    found = []
    for folder in sorted((root / "var" / "quarantine").glob("*/*")):
        names = _below(folder)
        reports = {"report.json", "report.md"}
        contents = [name for name in names if name not in {*reports, "closed.json"}]
        if len(contents) != 1 or not reports <= set(names) or not load(folder / "report.json")["reason"]:
            found.append(Fault("half", f"{folder.relative_to(root)} holds {names}"))
            continue
        held[_md5(folder / contents[0])] += 1
    found += [Fault("doubled", f"{md5} is in quarantine {n} times") for md5, n in held.items() if n > 1]
    return dict(held), found


# ── versions ──────────────────────────────────────────────────────────────────────────────────────


def version(root: Path) -> str:
    """The hash in data.dvc."""
    return str(yaml.safe_load((root / "data.dvc").read_text())["outs"][0]["md5"])


def revisions(root: Path) -> dict[str, list[str]]:
    """Partition → the MD5 of its revisions, oldest first; of those that were revised."""
    meta = yaml.safe_load((root / "data.dvc").read_text()).get("meta", {})
    return {name: [one["md5"] for one in history] for name, history in meta.get("revisions", {}).items()}


def content(root: Path, md5: str) -> bytes:
    """A revision's content."""
    return _object(root / ".dvc" / "cache", md5).read_bytes()


def _object(folder: Path, md5: str) -> Path:
    return folder / "files" / "md5" / md5[:2] / md5[2:]


def _versioned(world: World) -> Iterator[Fault]:
    """data.dvc names exactly data/; cache and remote have all of it, and former revisions, with the promised bytes."""
    root, named = world.root, version(world.root)
    listing = sorted(({"md5": m, "relpath": n} for n, m in data(root).items()), key=lambda entry: entry["relpath"])
    now = hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    if now != named:
        yield Fault("half", f"data.dvc names {named}, data/ is {now}")
    for where in (root / ".dvc" / "cache", root / "var" / "remote"):
        former = {md5 for history in revisions(root).values() for md5 in history[:-1]}
        for md5 in [named, *(entry["md5"] for entry in listing), *sorted(former)]:
            path = _object(where, md5)
            if not path.is_file():
                yield Fault("lost", f"{md5} is not in {where.relative_to(root)}")
            elif _md5(path) != md5.removesuffix(".dir"):
                yield Fault("half", f"{where.relative_to(root)} holds something else as {md5}")


def _graph(world: World) -> Iterator[Fault]:
    """What dvc.lock names is in the cache, and lies in build/ with the same bytes."""
    root = world.root
    for name, stage in yaml.safe_load((root / "dvc.lock").read_text())["stages"].items():
        for out in stage["outs"]:
            path = _object(root / ".dvc" / "cache", out["md5"])
            if not path.is_file():
                yield Fault("half", f"dvc.lock: {out['path']} of {name} is not in the cache")
                continue
            held = {"": out["md5"]}
            if out["md5"].endswith(".dir"):
                held = {f"/{entry['relpath']}": entry["md5"] for entry in load(path)}
                if set(held) != {f"/{name}" for name in _below(root / out["path"])}:
                    yield Fault("half", f"{out['path']} holds other files than dvc.lock says")
            for below, md5 in held.items():
                if not _object(root / ".dvc" / "cache", md5).is_file():
                    yield Fault("half", f"dvc.lock: {out['path']}{below} is not in the cache")
                made = Path(f"{root}/{out['path']}{below}")
                if not made.is_file() or _md5(made) != md5:
                    yield Fault("half", f"{out['path']}{below} is not what dvc.lock names")


def _leftovers(world: World) -> Iterator[Fault]:
    """What killed processes left beside what they wrote is gone."""
    root = world.root
    left = {p for p in root.rglob("*") if p.name.endswith((".tmp", ".sending")) or p.name.startswith(("tmp", ".tmp"))}
    left = {p for p in left if p.relative_to(root).parts[0] != ".dvc"}  # DVC leaves in its cache what it was copying
    # DVC's own, in a remote that others may share: swept by a later push (tasks/data/versions.py)
    left -= set((root / "var" / "remote" / "files" / "md5").glob("*/.*.tmp"))
    left -= {root / "var/bentoml/tmp"}
    left |= set((root / "var" / "bentoml" / "tmp").glob("*")) | set((root / "var").glob("restore-*"))
    left |= set((root / "var" / "incoming").glob("*"))
    tops = sorted(p for p in left if not any(parent in left for parent in p.parents))
    yield from (Fault("half", f"left over: {p.relative_to(root)}") for p in tops)


# ── the registry ──────────────────────────────────────────────────────────────────────────────────


class Store:
    """MLflow's tables."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self.database.execute(query, values).fetchall()

    def mapping(self, query: str, *values: Any) -> dict[str, str]:
        """The rows of a query as name → value."""
        return {str(name): str(value) for name, value in self.rows(query, *values)}

    def runs(self) -> list[dict[str, Any]]:
        """The runs that are not deleted."""
        said = self.rows("select run_uuid, status, artifact_uri from runs where lifecycle_stage = 'active'")
        tags = "select key, value from tags where run_uuid = ?"
        return [{"id": i, "status": s, "folder": _folder(u), "tags": self.mapping(tags, i)} for i, s, u in said]

    def versions(self) -> dict[int, dict[str, Any]]:
        """The versions of the tiny model."""
        said = self.rows("select version, run_id, source, status from model_versions where name = 'tiny'")
        tags = "select key, value from model_version_tags where name = 'tiny' and version = ?"
        return {int(v): {"run": r, "source": s, "status": t, "tags": self.mapping(tags, v)} for v, r, s, t in said}

    def aliases(self) -> dict[str, int]:
        """Alias → version."""
        said = self.mapping("select alias, version from registered_model_aliases where name = 'tiny'")
        return {alias: int(number) for alias, number in said.items()}


def _folder(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


def candidate(root: Path) -> str:
    """The candidate in build/."""
    return str(load(root / "build/tiny/release/candidate.json")["candidate"])


def tree(folder: Path) -> dict[str, str]:
    """Relative path → SHA-256 of every file."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in _below(folder)
        if "__pycache__" not in name
    }


def _identity(held: dict[str, str]) -> str:
    """What a release with these files is called."""
    kept = {name: sha for name, sha in held.items() if name != "candidate.json"}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _registry(world: World, store: Store) -> Iterator[Fault]:
    """Runs, versions, verdicts, aliases, the note and the Bentos name each other, and what they name is there."""
    root, now = world.root, candidate(world.root)
    runs, versions, aliases = store.runs(), store.versions(), store.aliases()
    by_id = {run["id"]: run for run in runs}
    yield from _runs(root, now, runs)
    numbers: dict[str, list[int]] = {}
    for number, one in sorted(versions.items()):
        numbers.setdefault(one["tags"].get("evergreen.candidate", "?"), []).append(number)
        yield from _version(root, number, one, by_id, store)
    yield from (Fault("doubled", f"candidate {c} is versions {n}") for c, n in numbers.items() if len(n) > 1)
    for alias, number in aliases.items():
        if number not in versions:
            yield Fault("half", f"alias {alias} names version {number}, which does not exist")
    if now not in numbers:
        yield Fault("lost", f"the newest candidate {now} is no version")
        return
    yield from _standing(world, numbers[now][0], versions, aliases, by_id, store)
    yield from _bentos(root, {one["tags"].get("evergreen.candidate", "?") for one in versions.values()})


def _runs(root: Path, now: str, runs: list[dict[str, Any]]) -> Iterator[Fault]:
    count = Counter(r["tags"].get("evergreen.candidate") for r in runs if r["status"] == "FINISHED")
    yield from (Fault("doubled", f"candidate {c} has {n} finished runs") for c, n in count.items() if n > 1)
    if not count[now]:
        yield Fault("lost", f"the newest candidate {now} has no finished run")
    for run in runs:
        if run["status"] != "FINISHED":
            said = f"run {run['id']} of candidate {run['tags'].get('evergreen.candidate')} is {run['status']}"
            yield Fault("half", said)
        elif _identity(tree(run["folder"] / "release")) != run["tags"]["evergreen.candidate"]:
            yield Fault("half", f"the artifacts of run {run['id']} are not its candidate's")
        elif not _made_from(root, run):
            yield Fault(
                "half", f"run {run['id']} was not made from {run['tags']['evergreen.data_version']}, as it says"
            )
        elif run["tags"]["evergreen.candidate"] == now and run["tags"]["evergreen.data_version"] != version(root):
            yield Fault("half", f"the run of {now} names {run['tags']['evergreen.data_version']}, not {version(root)}")


def _made_from(root: Path, run: dict[str, Any]) -> bool:
    """Whether the partitions of a run's release are those of the data version that it names."""
    listing = _object(root / ".dvc" / "cache", run["tags"]["evergreen.data_version"])
    held = {entry["relpath"]: entry["md5"] for entry in load(listing)} if listing.is_file() else {}
    said = load(run["folder"] / "release" / "release.json")["lineage"]["partitions"]
    return held == {f"{dataset}/{name}": md5 for dataset, names in said.items() for name, md5 in names.items()}


def _version(
    root: Path, number: int, one: dict[str, Any], runs: dict[str, dict[str, Any]], store: Store
) -> Iterator[Fault]:
    run = runs.get(one["run"])
    if run is None or run["status"] != "FINISHED":
        yield Fault("half", f"version {number} names run {one['run']}, which does not exist or is not finished")
        return
    if one["status"] != "READY" or run["tags"]["evergreen.candidate"] != one["tags"].get("evergreen.candidate"):
        yield Fault("half", f"version {number} is {one['status']}, its candidate is not its run's")
    model = one["source"].rpartition("/")[2]
    said = store.rows("select artifact_location, status, lifecycle_stage from logged_models where model_id = ?", model)
    if len(said) != 1 or said[0][2] != "active" or not (_folder(said[0][0]) / "MLmodel").is_file():
        yield Fault("half", f"version {number} names the model {model}, which is not there: {said}")
    verdict = one["tags"].get("evergreen.verdict_id")
    tags = {name for name in ("verdict", "verdict_summary", "verdict_id") if f"evergreen.{name}" in one["tags"]}
    if tags and len(tags) != 3:
        yield Fault("half", f"version {number} has of its verdict only {sorted(tags)}")
    whole = ["verdict.json", "verdict.md", "verdict.svg"]
    if verdict and sorted(_below(run["folder"] / "verdicts" / verdict)) != whole:
        yield Fault("half", f"version {number}: verdict {verdict} is not whole")


def _standing(
    world: World,
    number: int,
    versions: dict[int, dict[str, Any]],
    aliases: dict[str, int],
    runs: dict[str, dict[str, Any]],
    store: Store,
) -> Iterator[Fault]:
    """Verdict, champion, tags and note of the newest candidate agree."""
    one, champion = versions[number], aliases.get("champion")
    tags = one["tags"]
    if "evergreen.verdict_id" not in tags:
        yield Fault("lost", f"version {number} was not judged")
        return
    if one["run"] not in runs:
        return  # said already
    path = runs[one["run"]]["folder"] / "verdicts" / tags["evergreen.verdict_id"] / "verdict.json"
    verdict = load(path) if path.is_file() else {}
    said = {"promoted": verdict.get("promoted"), "summary": verdict.get("summary")}
    if said != {
        "promoted": tags.get("evergreen.verdict") == "promoted",
        "summary": tags.get("evergreen.verdict_summary"),
    }:
        yield Fault("half", f"version {number}: tags and verdict differ: {tags} {said}")
    yield from _place(number, tags, bool(verdict.get("promoted")), aliases)
    floor = yaml.safe_load((world.root / "params.yaml").read_text())["models"]["tiny"]["gate"]["floors"]
    if champion != number and verdict.get("rule", {}).get("floors") != floor:
        yield Fault("half", f"version {number} was refused by {verdict.get('rule')}, the rule is {floor} now")
    yield from _since(champion, store)
    note = load(world.root / "var/mlflow/settled/tiny.json")
    if note["inputs"]["candidate"] != candidate(world.root):
        yield Fault("half", f"the note is about {note['inputs']['candidate']}")
    if verdict.get("summary") != note["outcome"]["outcome"] and f"version {number}" not in note["outcome"]["outcome"]:
        yield Fault("half", f"the note says {note['outcome']['outcome']!r}, the verdict {verdict.get('summary')!r}")


def _place(number: int, tags: dict[str, str], promoted: bool, aliases: dict[str, int]) -> Iterator[Fault]:
    """The aliases say what the verdict says."""
    champion = aliases.get("champion")
    if promoted != (champion == number):
        yield Fault("half", f"version {number}: promoted is {promoted}, the champion is {champion}")
    if champion == number and tags.get("evergreen.promoted_by") != tags["evergreen.verdict_id"]:
        yield Fault("half", f"version {number} was not promoted by its verdict: {tags.get('evergreen.promoted_by')}")
    if (aliases.get("challenger") == number) == (champion == number):
        yield Fault("half", f"version {number} is champion and challenger, or neither: {aliases}")
    if champion is not None and aliases.get("former") == champion:
        yield Fault("half", f"version {champion} is champion and the former one")


def _since(champion: int | None, store: Store) -> Iterator[Fault]:
    """Each change of the champion is written down once, and the last one is who it is."""
    said = store.rows(
        "select key, value from registered_model_tags where name = 'tiny' and key like 'evergreen.champion_since.%'"
    )
    order = [int(value) for _, value in sorted(said)]
    if (order[-1:] or [None]) != [champion]:
        yield Fault("half", f"the champion is {champion}, and since when is known of {order}")
    if any(a == b for a, b in pairwise(order)):
        yield Fault("doubled", f"champion since: {order}")


def _bentos(root: Path, candidates: set[str]) -> Iterator[Fault]:
    """Each version has its Bento, and each Bento in the store is whole."""
    store = root / "var/bentoml/bentos/tiny"
    for name in sorted(candidates):
        if not (store / name / "bento.yaml").is_file():
            yield Fault("half", f"candidate {name} has no Bento")
    for bento in sorted(p for p in store.iterdir() if p.is_dir()):
        held = {n: sha for n, sha in tree(bento / "src").items() if n != "bentofile.yaml"}
        if not (bento / "bento.yaml").is_file() or _identity(held) != bento.name:
            yield Fault("half", f"Bento {bento.name} is not whole")
    latest = (store / "latest").read_text().strip() if (store / "latest").exists() else None
    if latest != candidate(root):
        yield Fault("half", f"the latest Bento is {latest}")
