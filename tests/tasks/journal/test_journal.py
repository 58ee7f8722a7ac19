"""The journal: each act is one line, whoever writes beside, and whatever was killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.ground import leases, paths, settings
from tasks.ground.errors import JournalDamaged, Mistake
from tasks.journal import journal, signing, verification
from tests.conftest import REPOSITORY

CHAIN = "flight_delay"


@pytest.fixture(autouse=True)
def _own_var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "VAR", tmp_path / "var")


def write(count: int) -> None:
    """So many decisions."""
    for number in range(count):
        journal.append(CHAIN, "decision", {"id": number, "retrain": False}, "nothing new")


def test_a_line_says_who_did_what_when_in_which_run_and_why() -> None:
    """And holds the hash of the line before; both bear a signature that anybody with the public key can verify."""
    write(1)
    with journal.in_run("http://127.0.0.1:4200/runs/flow-run/1"):
        journal.append(CHAIN, "verdict", {"candidate": "c1"}, "better", time="2026-12-01T00:00:00.000Z")
    first, second = paths.journal(CHAIN).read_bytes().splitlines()
    line = json.loads(second)
    assert line["before"] == journal.sha256(first)
    assert signing.parse(second) == {name: value for name, value in line.items() if name != "signature"}
    (verdict,) = journal.lines(CHAIN, "verdict")
    assert (verdict.number, verdict.who) == (2, journal.account())
    assert verdict.flat == {
        "candidate": "c1",
        "time": "2026-12-01T00:00:00.000Z",
        "run": "http://127.0.0.1:4200/runs/flow-run/1",
        "why": "better",
    }
    assert "verdict" in str(verdict)
    assert journal.lines(CHAIN)[0].run == ""


def test_a_no_is_shown_as_one() -> None:
    """Whoever reads the journal sees that nothing was promoted, or trained."""
    journal.append(CHAIN, "verdict", {"challenger": "c1", "promoted": False, "summary": ""}, "may be chance")
    assert str(journal.lines(CHAIN)[0]).endswith("challenger c1, promoted False: may be chance")


def test_a_public_key_that_was_removed_is_made_of_the_private_one_again() -> None:
    """Where that is there too; then nothing is lost, and the next act is written."""
    write(1)
    paths.journal_public_key().unlink()
    write(1)
    assert verification.verify(CHAIN) == []
    assert len(journal.verified(CHAIN)) == 2


def test_lines_are_read_from_either_end() -> None:
    """Of one kind or of all; also where a line is longer than what is read at once."""
    assert (journal.lines(CHAIN), journal.last(CHAIN), journal.newest(CHAIN, 3)) == ((), None, [])
    write(3)
    journal.append(CHAIN, "verdict", {"long": "x" * 3 * journal.BLOCK})
    write(2)
    numbers = [line.number for line in journal.lines(CHAIN)]
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert [line.number for line in journal.newest(CHAIN, 3)] == [4, 5, 6]
    assert [line.number for line in journal.newest(CHAIN, 9, "decision")] == [1, 2, 3, 5, 6]
    last = journal.last(CHAIN, "verdict")
    assert last is not None
    assert last.number == 4
    with paths.journal(CHAIN).open("ab") as stream:
        stream.write(b'{"half')
    assert [line.number for line in journal.newest(CHAIN, 1)] == [6]


def test_the_key_is_its_owners_alone_and_another_one_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lie elsewhere; a lost one is told, and no new one is made in its place."""
    write(1)
    assert paths.journal_key().stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "keys" / "journal.pem"
    monkeypatch.setenv(signing.KEY, str(elsewhere))
    with pytest.raises(JournalDamaged, match=r"the journal's key is not at .*keys/journal\.pem: nothing was written"):
        write(1)
    assert not elsewhere.exists()
    elsewhere.parent.mkdir()
    paths.journal_key().rename(elsewhere)
    write(1)
    paths.journal(CHAIN).parent.rename(tmp_path / "kept")
    elsewhere.unlink()
    write(1)  # a new journal, a new key, in its place
    (tmp_path / "kept" / "public.pem").replace(paths.journal_public_key())
    with pytest.raises(JournalDamaged, match="is not the one that this journal is signed with: nothing was written"):
        write(1)
    elsewhere.write_text("nonsense")
    with pytest.raises(Mistake, match="holds no private key of Ed25519"):
        write(1)
    assert len(journal.lines(CHAIN)) == 1


def test_a_fenced_writer_names_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where machines share leases."""
    monkeypatch.setattr(leases, "taken", lambda: [leases.Lease("0123abcd/train-flight_delay", 7)])
    write(1)
    assert journal.lines(CHAIN)[0].tokens == {"train-flight_delay": 7}


def test_lines_with_anothers_signature_are_none_where_that_counts() -> None:
    """Whoever can write to var/ but has no key can add nothing that counts, nor move a line from another chain."""
    write(2)
    journal.append("other", "decision", {"id": "of another"})
    with paths.journal(CHAIN).open("ab") as stream:
        stream.write(paths.journal(CHAIN).read_bytes().splitlines()[0].replace(b'"id":0', b'"id":9') + b"\n")
        stream.write(paths.journal("other").read_bytes())
    assert [line.what["id"] for line in journal.lines(CHAIN)] == [0, 1, 9, "of another"]
    assert [line.what["id"] for line in journal.verified(CHAIN, "decision")] == [0, 1]


def _write_beside(var: Path, who: int) -> None:
    settings.VAR = var
    for number in range(10):
        journal.append(CHAIN, "decision", {"id": [who, number]})


def test_two_writers_at_once_make_one_chain() -> None:
    """Neither's line is lost, and each continues the one before."""
    spawned = multiprocessing.get_context("fork")
    writers = [spawned.Process(target=_write_beside, args=(settings.VAR, who)) for who in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert verification.verify(CHAIN) == []
    ids = sorted(line.what["id"] for line in journal.lines(CHAIN))
    assert ids == [[who, number] for who in (1, 2) for number in range(10)]


DYING = """
import os, signal, sys
from pathlib import Path
from tasks.ground import settings
settings.VAR = Path(sys.argv[1])
from tasks.journal import journal
left = int(sys.argv[2])
def count(event, args):
    global left
    if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate") and sys.argv[1] in str(args[0]):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
journal.append("flight_delay", "decision", {"id": "dying"})
"""


def deaths(every: int) -> Iterator[int]:
    """A writer is killed before the file operation with each number, until it ends; gives its exit code."""
    number, code = 0, -9
    while code:
        code = subprocess.run(
            [sys.executable, "-c", DYING, str(settings.VAR), str(number)], cwd=REPOSITORY, check=False
        ).returncode
        yield code
        number += every


@pytest.mark.parametrize(("lines", "every"), [(0, 4), (2, 3), pytest.param(0, 1, marks=pytest.mark.long)])
def test_a_writer_killed_at_any_boundary_leaves_a_whole_chain(lines: int, every: int) -> None:
    """Its line is there or not; the next one continues; nothing that is right is complained of."""
    write(lines)
    for code in deaths(every):
        assert code in {0, -9}
        assert not paths.journal_public_key().exists() or verification.verify(CHAIN) == []
    write(1)
    assert verification.verify(CHAIN) == []
    assert len({line.number for line in journal.lines(CHAIN)}) == len(journal.lines(CHAIN))


def test_half_a_line_of_a_power_cut_is_set_aside_and_the_chain_goes_on() -> None:
    """It was never acknowledged: no line is missing."""
    write(2)
    with paths.journal(CHAIN).open("ab") as stream:
        stream.write(b'{"before":"1234')
    assert verification.verify(CHAIN) == []
    write(1)
    assert verification.verify(CHAIN) == []
    assert [line.number for line in journal.lines(CHAIN)] == [1, 2, 3]
    assert len(list((settings.VAR / "torn").iterdir())) == 1


def test_where_lines_are_gone_what_happens_is_still_written_and_the_gap_stays_to_be_seen() -> None:
    """The next line continues from the head."""
    write(4)
    whole = paths.journal(CHAIN).read_bytes().splitlines(keepends=True)
    paths.journal(CHAIN).write_bytes(b"".join(whole[:2]))
    write(1)
    (damage,) = verification.verify(CHAIN)
    assert (damage.line, damage.what) == (3, "2 lines missing before it, of lines 3 to 4")


def test_a_full_disk_leaves_no_half_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The act is not done, as it cannot be written down."""
    write(1)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: real(file, data[:3]))
        with pytest.raises(OSError, match="No space left"):
            write(1)
    write(1)
    assert verification.verify(CHAIN) == []
    assert [line.number for line in journal.lines(CHAIN)] == [1, 2]


@pytest.mark.parametrize("chain", ["key", "migration", "lineage", "public", "head"])
def test_a_model_may_be_called_as_something_of_the_journal(chain: str) -> None:
    """No lock and no file of the journal itself has the name of one of a chain."""
    done = multiprocessing.get_context("fork").Process(target=journal.append, args=(chain, "decision", {"id": 1}))
    done.start()
    done.join(20)
    done.kill()
    assert done.exitcode == 0
    assert [line.number for line in journal.lines(chain)] == [1]


def test_a_line_that_lost_its_newline_only_is_continued() -> None:
    """A power cut may leave that; and the head of the line before."""
    write(2)
    head = paths.journal_head(CHAIN).read_bytes()
    write(1)
    path = paths.journal(CHAIN)
    path.write_bytes(path.read_bytes()[:-1])
    paths.journal_head(CHAIN).write_bytes(head)
    write(1)
    assert [line.number for line in journal.lines(CHAIN)] == [1, 2, 3, 4]
    assert verification.verify(CHAIN) == []


def test_names_that_are_numbers_are_signed_as_they_are_read() -> None:
    """2 comes before 10, and "10" before "2"."""
    journal.append(CHAIN, "decision", {"versions": {2: "a", 10: "b"}})
    assert verification.verify(CHAIN) == []


def test_a_key_that_cannot_be_read_is_named() -> None:
    """No traceback; nothing is written."""
    write(1)
    paths.journal_key().unlink()
    paths.journal_key().mkdir()
    with pytest.raises(JournalDamaged, match=r"cannot be read, nothing was written: .*key\.pem"):
        write(1)
    assert len(journal.lines(CHAIN)) == 1
