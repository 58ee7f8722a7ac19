"""Verification: which lines of a chain were changed, removed, moved or cut off, and where.

Every line is signed, so a changed one is known by itself; numbers tell which are missing, repeated or moved; hashes
tell that two lines were not written one after the other; the signed head tells that the end is missing. A chain that
was cut off together with its head is found by a head that was kept elsewhere (`evergreen journal head`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.ground import paths
from tasks.ground.errors import Mistake
from tasks.ground.words import many
from tasks.journal import journal, signing


@dataclass(frozen=True)
class Damage:
    """Something that is not as it was written."""

    chain: str
    line: int | None
    """The place in the file, from 1: that line, or the one before which lines are missing. None: the head."""
    what: str

    def __str__(self) -> str:
        place = paths.journal(self.chain) if self.line else paths.journal_head(self.chain)
        return f"{place}{f':{self.line}' if self.line else ''}: {self.what}"


@dataclass(frozen=True)
class _Placed:
    """A line that is as it was written."""

    place: int
    number: int
    before: str
    hash: str


def chains() -> list[str]:
    """Those there are, by their lines or by their heads."""
    folder = paths.journal(journal.PLATFORM).parent
    names = {path.name.removesuffix(".jsonl") for path in folder.glob("*.jsonl")}
    return sorted(names | {path.name.removesuffix(".head.json") for path in folder.glob("*.head.json")})


def verify(chain: str, pinned: Iterable[dict[str, Any]] = ()) -> list[Damage]:
    """What is not as it was written in a chain, by place; `pinned`: heads that were kept elsewhere.

    Raises:
        JournalDamaged: the public key is gone.
        Mistake: a pinned head is none.
    """
    try:
        content = paths.journal(chain).read_bytes()
    except FileNotFoundError:
        content = b""
    *whole, torn = content.split(b"\n")
    placed, changed = _read(chain, whole)
    damages = [Damage(chain, place, "is not as it was written: a byte of it was changed") for place in changed]
    damages += _out_of_place(chain, placed)
    damages += _gaps(chain, placed, changed)
    damages += _of_head(chain, placed, torn, len(whole))
    for head in pinned:
        damages += _of_pinned(chain, placed, head, len(whole))
    return sorted(set(damages), key=lambda damage: (damage.line is None, damage.line or 0))


def _read(chain: str, whole: list[bytes]) -> tuple[list[_Placed], list[int]]:
    """The lines that are as they were written, and the places of all others."""
    placed, changed = [], []
    signing.public()  # raises where no line can be verified
    for place, line in enumerate(whole, 1):
        if value := journal.parse(chain, line):
            placed.append(_Placed(place, value["number"], value["before"], journal.sha256(line)))
        else:
            changed.append(place)
    return placed, changed


def _out_of_place(chain: str, placed: list[_Placed]) -> Iterator[Damage]:
    """Lines that stand twice, or where another one was."""
    seen: dict[int, _Placed] = {}
    for line in placed:
        if line.number in seen:
            first = seen[line.number]
            what = f"line {line.number} stands here again: it is at {first.place}"
            yield Damage(chain, line.place, what if first.hash == line.hash else f"{what}, with another content")
        else:
            seen[line.number] = line
    present = list(seen.values())
    for line, number in zip(present, sorted(seen), strict=True):
        if line.number != number:
            yield Damage(chain, line.place, f"line {line.number} stands where line {number} was")


def _gaps(chain: str, placed: list[_Placed], changed: list[int]) -> Iterator[Damage]:
    """Lines that are missing between others, and neighbours that do not continue each other."""
    by_number = {line.number: line for line in reversed(placed)}
    ordered = [by_number[number] for number in sorted(by_number)]
    begin = _Placed(0, 0, "", "")
    for former, other in zip([begin, *ordered], ordered, strict=False):
        between = sum(former.place < place < other.place for place in changed)
        missing = other.number - former.number - 1 - between
        if missing > 0:
            which = _span(former.number + 1, other.number - 1)
            yield Damage(chain, other.place, f"{many(missing, 'line')} missing before it, of {which}")
        elif other.number == former.number + 1 and other.before != former.hash:
            yield Damage(
                chain, other.place, f"line {other.number} does not continue line {former.number}: one was replaced"
            )


def _of_head(chain: str, placed: list[_Placed], torn: bytes, length: int) -> Iterator[Damage]:
    """What the signed head says of the end. It may be one line behind: a writer was killed before it was written."""
    head, last = journal.head_of(chain), max((line.number for line in placed), default=0)
    if head is None:
        if paths.journal_head(chain).exists():
            yield Damage(chain, None, "is not as it was written: a byte of it was changed")
        elif length > 1 or torn:
            yield Damage(chain, None, f"is missing: {many(length, 'line')} may not be all there were")
        return
    if head["number"] > last:
        yield from _cut_off(chain, last, length, head["number"], "its head")
    elif head["number"] < last - 1:
        yield Damage(
            chain, None, f"names line {head['number']} and there are {last}: an older one was put in its place"
        )
    yield from _differs(chain, placed, head, "the head")


def _cut_off(chain: str, last: int, length: int, number: int, of: str) -> Iterator[Damage]:
    yield Damage(chain, length + 1, f"the end is missing: {_span(last + 1, number)}, which {of} names")


def _differs(chain: str, placed: list[_Placed], head: dict[str, Any], what: str) -> Iterator[Damage]:
    for line in placed:
        if line.number == head["number"] and line.hash != head["hash"]:
            yield Damage(chain, line.place, f"line {line.number} is not the one that {what} names")


def _of_pinned(chain: str, placed: list[_Placed], head: dict[str, Any], length: int) -> Iterator[Damage]:
    what = f"the head that was kept on {head['time'][:16]}"
    if head["key"] != signing.public():
        yield Damage(chain, 1, f"{what} is signed with another key: the whole chain was written anew")
        return
    last = max((line.number for line in placed), default=0)
    if head["number"] > last:
        yield from _cut_off(chain, last, length, head["number"], what)
    yield from _differs(chain, placed, head, what)


def _span(first: int, last: int) -> str:
    return f"line {first}" if first == last else f"lines {first} to {last}"


def read_pinned(path: Path) -> list[dict[str, Any]]:
    """The heads in a file, as `evergreen journal head --json` prints them: one, or a list.

    Raises:
        Mistake: it holds something else, or a head whose signature is not right.
    """
    import json

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        heads = content if isinstance(content, list) else content.get("heads", [content])
        whole = [signing.parse(signing.canonical(head), head["key"]) for head in heads]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Mistake(f"{path} holds no heads, as `evergreen journal head --json` prints them ({error})") from None
    if not all(head and {"chain", "number", "hash", "time", "key"} <= head.keys() for head in whole):
        raise Mistake(f"{path} holds a head that was changed: its signature is not right. Take another copy of it")
    return [head for head in whole if head]
