"""Corrections by a person: list a partition's revisions, make a former one count again, take the partition out.

Each makes a data version at once, and is a revision itself: nothing that counted is forgotten.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tasks.data import changes, landing, revisions, validate, versions
from tasks.data.quarantine import Refusal
from tasks.data.revisions import Revision
from tasks.data.zones import Landed
from tasks.ground import leases, settings
from tasks.ground.errors import DataMissing, EvergreenError, Mistake, StageFailed, did_you_mean
from tasks.ground.params import Params

NEXT = "The next ingest triggers the models that read it"


def revert(params: Params, dataset: str, partition: str, to: int | None = None) -> str:
    """Make a former revision of a partition count again; gives in words what that changed.

    Args:
        params: the whole of params.yaml.
        dataset: whose partition.
        partition: its name.
        to: the number of the revision; None: the one before the newest.

    Raises:
        Mistake: there is no such revision, or it counts already.
        DataMissing: its content is neither in the cache nor in the remote.
        StageFailed: it does not pass the expectation suites of today.
    """
    name = f"{dataset}/{partition}"
    with leases.hold("ingest"):
        history = _history(name)
        number = len(history) - 1 if to is None else to
        if not 1 <= number <= len(history):
            raise Mistake(f"{name} has no revision {number}; it has 1 to {len(history)}")
        wanted, current = history[number - 1], history[-1]
        if wanted == current:
            raise Mistake(f"revision {number} of {name} is the content that counts now")
        landed = Landed(dataset, partition, f"{dataset}/{wanted.file}", seen="")
        if wanted.withdrawn:
            _take_out(landed, params)
        else:
            _put_back(landed, wanted, params)
        version = versions.make(why=f"revision {number} again, by hand")
        versions.push()
    difference = _between(current, wanted, dataset, params)
    return f"{name}: revision {number} counts again ({difference}); data version {version}. {NEXT}"


def withdraw(params: Params, dataset: str, partition: str) -> str:
    """Take a partition out of the data; `revert` brings it back.

    Raises:
        Mistake: there is no such partition.
        StageFailed: the one after it would not pass without it, or it is the only one.
    """
    name = f"{dataset}/{partition}"
    with leases.hold("ingest"):
        if not landing.in_data(dataset, partition):
            known = [path.stem for path in validate.partitions(dataset)] if dataset in params.datasets else None
            hint = did_you_mean(dataset, params.datasets) if known is None else did_you_mean(partition, known)
            raise Mistake(f"data/ has no partition {name}{hint}")
        _take_out(Landed(dataset, partition, name, seen=""), params)
        version = versions.make(why="withdrawn by hand")
        versions.push()
    return f"{name} is withdrawn; data version {version}. `evergreen revert {dataset} {partition}` undoes it. {NEXT}"


def listed(params: Params, dataset: str | None = None, partition: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Partition → its revisions, oldest first; of one dataset or of one partition, if named."""
    notes = revisions.noted()
    listing: dict[str, list[dict[str, Any]]] = {}
    for name, history in sorted(revisions.read().items()):
        of, _, which = name.partition("/")
        if dataset in (None, of) and partition in (None, which):
            listing[name] = [
                {
                    "number": number,
                    "content": str(revision),
                    "changed": _between(history[number - 2], revision, of, params) if number > 1 else None,
                    "why": notes[name, number].why if (name, number) in notes else None,
                    "at": notes[name, number].time if (name, number) in notes else None,
                    "counts": number == len(history),
                }
                for number, revision in enumerate(history, 1)
            ]
    return listing


def in_words(listing: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Those revisions, in lines for a person."""
    for name, history in listing.items():
        yield name
        for revision in history:
            changed = f": {revision['changed']}" if revision["changed"] is not None else ""
            note = f"; {revision['why']}, {revision['at']}" if revision["why"] is not None else ""
            now = " (counts now)" if revision["counts"] else ""
            yield f"  {revision['number']}  {revision['content']}{changed}{note}{now}"


def _history(name: str) -> list[Revision]:
    histories = revisions.read()
    if name not in histories:
        dataset, _, partition = name.partition("/")
        if landing.in_data(dataset, partition):
            raise Mistake(f"{name} was never revised: `evergreen withdraw {dataset} {partition}` takes it out")
        raise Mistake(f"there is no partition {name}{did_you_mean(name, list(histories))}")
    return histories[name]


def _put_back(landed: Landed, wanted: Revision, params: Params) -> None:
    with TemporaryDirectory(dir=settings.VAR) as folder:
        local = Path(folder) / wanted.file
        shutil.copyfile(versions.content(wanted.md5), local)
        _stop_at(landing.refuse(landed, local, params), landed)
        landing.accept(landed, local, params)


def _take_out(landed: Landed, params: Params) -> None:
    _stop_at(landing.refuse_withdrawal(landed, params), landed)
    landing.remove(landed)


def _stop_at(refusal: Refusal | None, landed: Landed) -> None:
    if refusal is not None:
        raise StageFailed(f"{landed}: {refusal.reason}. {refusal.todo}. Nothing was changed")


def _between(former: Revision, now: Revision, dataset: str, params: Params) -> str:
    """What one revision changed of the one before, as far as both contents can be had."""
    if now.withdrawn or former.withdrawn:
        return "withdrawn" if now.withdrawn else "there again"
    try:
        before, after = ((revision.file, versions.content(revision.md5)) for revision in (former, now))
    except EvergreenError as error:
        return str(error) if isinstance(error, DataMissing) else "what it changed is unknown: no remote answers"
    difference = changes.between(before, after, dataset, params.readers(dataset)[0])
    return str(difference or "what it changed is unknown: one of both contents cannot be read any more")
