"""What was changed in the journal is found, and where."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments import cli
from tasks.ground import paths, settings
from tasks.ground.errors import JournalDamaged, Mistake
from tasks.journal import journal, signing, verification

CHAIN, LENGTH = "flight_delay", 12
Places = set[int | None]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of twelve lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "VAR", tmp_path_factory.mktemp("journal"))
        for number in range(LENGTH):
            journal.append(CHAIN, "decision", {"id": number, "x": 0.1 * number}, "because — «it» is so")
        return settings.VAR


@pytest.fixture(autouse=True)
def chain(written: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Its lines, and the files as they were."""
    monkeypatch.setattr(settings, "VAR", written)
    before = paths.journal(CHAIN), paths.journal_head(CHAIN)
    contents = [path.read_bytes() for path in before]
    yield contents[0].splitlines(keepends=True)  # type: ignore[misc]
    for path, content in zip(before, contents, strict=True):
        path.write_bytes(content)


def changed(content: bytes, chance: random.Random) -> tuple[bytes, int]:
    """A content with one other byte, and its place."""
    place = chance.randrange(len(content))
    other = chance.choice([byte for byte in range(256) if byte != content[place]])
    return content[:place] + bytes([other]) + content[place + 1 :], place


def change(lines: list[bytes], chance: random.Random) -> Places:
    """Do one harm to the chain or its head; gives the places of which at least one has to be named."""
    whole = b"".join(lines)
    harm = chance.choice(["byte", "byte", "head", "removed", "swapped", "cut", "repeated"])
    if harm == "head":
        path = paths.journal_head(CHAIN)
        path.write_bytes(changed(path.read_bytes(), chance)[0])
        return {None}
    first, second = sorted(chance.sample(range(len(lines)), 2))
    if harm == "byte":
        content, place = changed(whole, chance)
        named = {whole[:place].count(b"\n") + 1}
    elif harm == "removed":
        content, named = b"".join(lines[:first] + lines[first + 1 :]), {first + 1}
    elif harm == "swapped":
        order = [*range(len(lines))]
        order[first], order[second] = second, first
        content, named = b"".join(lines[at] for at in order), {first + 1, second + 1}
    elif harm == "cut":
        place = chance.randrange(len(whole))
        content, named = whole[:place], {whole[:place].count(b"\n") + 1}
    else:
        content, named = b"".join([*lines[:second], lines[first], *lines[second:]]), {second + 1, first + 2}
    paths.journal(CHAIN).write_bytes(content)
    return set(named)


def test_a_thousand_of_a_thousand_changes_are_found_and_located(chain: list[bytes]) -> None:
    """One byte, a line removed, two swapped, one repeated, the end cut off, the head changed."""
    head, missed = paths.journal_head(CHAIN).read_bytes(), []
    for seed in range(1000):
        wanted = change(chain, random.Random(seed))
        damages = verification.verify(CHAIN)
        if not wanted & {damage.line for damage in damages}:
            missed.append((seed, wanted, damages))
        paths.journal(CHAIN).write_bytes(b"".join(chain))
        paths.journal_head(CHAIN).write_bytes(head)
    assert missed == []
    assert verification.verify(CHAIN) == []


Harm = Callable[[list[bytes]], list[bytes]]


@pytest.mark.parametrize(
    ("harm", "place", "what"),
    [
        (lambda lines: [*lines[:4], lines[4].replace(b'"id":4', b'"id":5'), *lines[5:]], 5, "a byte of it was changed"),
        (lambda lines: [*lines[:4], lines[4].replace(b"{", b"{ ", 1), *lines[5:]], 5, "a byte of it was changed"),
        (lambda lines: [*lines[:4], *lines[7:]], 5, "3 lines missing before it, of lines 5 to 7"),
        (lambda lines: lines[1:], 1, "1 line missing before it, of line 1"),
        (lambda lines: lines[:-2], 11, "the end is missing: lines 11 to 12, which its head names"),
        (lambda lines: [*lines, lines[3]], 13, "line 4 stands here again: it is at 4"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1, "line 2 stands where line 1 was"),
        (lambda lines: [], 1, "the end is missing: lines 1 to 12, which its head names"),
    ],
)
def test_it_is_said_what_is_wrong(
    chain: list[bytes], harm: Harm, place: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With file and line, and exit code 3."""
    paths.journal(CHAIN).write_bytes(b"".join(harm(chain)))
    assert cli.main(["journal", "verify"]) == 3
    told = capsys.readouterr().out
    assert f"{paths.journal(CHAIN)}:{place}: " in told
    assert what in told


def test_a_head_that_was_kept_elsewhere_finds_what_was_cut_off_with_the_head(
    chain: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that a whole chain was written anew by whoever has the key."""
    assert cli.main(["journal", "head", "--json"]) == 0
    pinned = tmp_path / "pinned.json"
    pinned.write_text(capsys.readouterr().out)
    assert cli.main(["journal", "verify", "--head", str(pinned)]) == 0
    assert f"{CHAIN}: 12 lines, each as it was written" in capsys.readouterr().out
    paths.journal(CHAIN).write_bytes(b"".join(chain[:6]))
    paths.journal_head(CHAIN).unlink()
    journal.append(CHAIN, "decision", {"id": "another"})  # the chain grows again
    assert verification.verify(CHAIN) == []
    assert cli.main(["journal", "verify", "--head", str(pinned)]) == 3
    assert "the end is missing: lines 8 to 12, which the head that was kept on" in capsys.readouterr().out
    for _ in range(5):
        journal.append(CHAIN, "decision", {"id": "another"})
    (damage,) = verification.verify(CHAIN, verification.read_pinned(pinned))
    assert "line 12 is not the one that the head that was kept on" in damage.what
    assert damage.line == 12


def test_an_older_head_in_the_place_of_the_newest_is_found(chain: list[bytes]) -> None:
    """One that is a line behind is a writer's that was killed."""
    at = {"chain": CHAIN, "key": signing.public(), "time": "2026-12-01T00:00:00Z"}
    for number, right in ((11, True), (10, False)):
        head = {**at, "number": number, "hash": journal.sha256(chain[number - 1].rstrip())}
        paths.journal_head(CHAIN).write_bytes(signing.signed(head) + b"\n")
        assert [damage.line for damage in verification.verify(CHAIN)] == ([] if right else [None])
    paths.journal_head(CHAIN).unlink()
    (damage,) = verification.verify(CHAIN)
    assert "is missing: 12 lines may not be all there were" in str(damage)


def test_what_is_no_pinned_head_is_a_mistake(tmp_path: Path) -> None:
    """Said with what prints one; a lost public key with the backup."""
    pinned = tmp_path / "pinned.json"
    for content in ("", "{}", "[1]", '{"heads": [{"key": "00"}]}', '{"key": "zz"}'):
        pinned.write_text(content)
        with pytest.raises(Mistake, match=r"holds (no heads|a head that was changed)"):
            verification.read_pinned(pinned)
    head = journal.signed_head(CHAIN)
    assert head is not None
    pinned.write_text(json.dumps({**head, "number": 3}))
    with pytest.raises(Mistake, match="holds a head that was changed: its signature is not right"):
        verification.read_pinned(pinned)
    kept = {path: path.read_bytes() for path in (paths.journal_public_key(), paths.journal_key())}
    for path in kept:
        path.unlink()
    with pytest.raises(JournalDamaged, match=r"public\.pem is not there: without it no line can be verified"):
        verification.verify(CHAIN)
    for path, content in kept.items():
        path.write_bytes(content)


def test_lines_are_shown_by_kind_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    """What is asked wrongly is answered with what there is."""
    assert cli.main(["journal", "show", CHAIN, "--kind", "decision", "--since", "2026-01-01"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("flight_delay: 12 lines\n    1  20")
    assert cli.main(["journal", "show", CHAIN, "--kind", "verdict", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {CHAIN: []}
    for arguments, wrong in (
        (["--kind", "verdit"], "no line is of the kind 'verdit'; did you mean 'verdict'"),
        (["--since", "yesterday"], "--since 'yesterday' is no time: write 2013-11-03"),
        (["flight_dely"], "the journal has no line of 'flight_dely'; did you mean 'flight_delay'"),
    ):
        assert cli.main(["journal", "show", *arguments]) == 1
        assert wrong in capsys.readouterr().err


def test_a_head_is_no_line_and_a_line_is_no_head() -> None:
    """Both are signed; either, in the other's place, is found, and the next act is written all the same."""
    path, head = paths.journal(CHAIN), paths.journal_head(CHAIN)
    line, signed = path.read_bytes().splitlines(keepends=True)[-1], head.read_bytes()
    path.write_bytes(path.read_bytes() + signed)
    assert [damage.line for damage in verification.verify(CHAIN)] == [LENGTH + 1]
    journal.append(CHAIN, "decision", {"id": 1})
    assert [damage.line for damage in verification.verify(CHAIN)] == [LENGTH + 1]
    head.write_bytes(line)
    assert [damage.line for damage in verification.verify(CHAIN)] == [LENGTH + 1, None]
    journal.append(CHAIN, "decision", {"id": 1})
    assert [damage.line for damage in verification.verify(CHAIN)] == [LENGTH + 1]
    with pytest.raises(Mistake, match="holds no heads"):
        verification.read_pinned(_file(path.parent / "pinned.json", line))


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
