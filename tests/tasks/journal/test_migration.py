"""What builds of before kept in ledgers is in the journal, wherever the migration was killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tasks.ground import json_lines, paths, settings
from tasks.journal import journal, migration, verification

FORMER: dict[str, list[dict[str, Any]]] = {
    "verdicts/tiny.jsonl": [{"time": "2026-11-02T00:00:00.000Z", "version": 1, "run": "http://run/1", "id": "v"}],
    "decisions/tiny.jsonl": [
        {"at": "2026-11-01T00:00:00+00:00", "run": "", "id": "d", "retrain": True, "why": "new rows"}
    ],
    "approvals/tiny.jsonl": [
        {
            "time": "2026-11-03T00:00:00+00:00",
            "model": "tiny",
            "candidate": "c",
            "verdict": "a",
            "policy": "b",
            "by": "grace",
            "identity": "os:grace",
            "why": "tried",
            "break_glass": False,
        }
    ],
    "rollouts/tiny.jsonl": [
        {"time": "2026-11-04T00:00:00.000Z", "candidate": "c", "version": 1, "outcome": "live", "why": ""}
    ],
    "predictions/tiny/erasures.jsonl": [
        {"at": "2026-11-05T00:00:00+00:00", "answered": 1, "after": None, "before": 5, "ids": [], "keys": []}
    ],
    "data/revisions.jsonl": [
        {"at": "2026-11-01T00:00:00+00:00", "partition": "readings/2013-01", "revision": 2, "md5": "m", "why": "sent"}
    ],
}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State of version 2."""
    monkeypatch.setattr(settings, "VAR", tmp_path / "var")
    for name, lines in FORMER.items():
        for line in lines:
            json_lines.append(settings.VAR / name, line)
    return settings.VAR


def migrate() -> None:
    """As `settings.apply` does."""
    migration.run(lambda: (settings.VAR / "state.json").write_text('{"version": 3}'))


def test_each_line_is_taken_over_and_marked_as_imported(state: Path) -> None:
    """In the order of time; who is known where it was; the ledgers are gone, and other files of theirs are not."""
    (state / "rollouts" / "tiny.failed.json").write_text("{}")
    migrate()
    lines = journal.lines("tiny")
    assert [line.kind for line in lines] == ["decision", "verdict", "approval", "rollout", "erasure"]
    assert [line.who for line in lines] == ["unknown", "unknown", "os:grace", "unknown", "unknown"]
    assert {line.imported for line in lines} == {name for name in FORMER if not name.startswith("data")}
    assert lines[0].flat == {
        "time": "2026-11-01T00:00:00+00:00",
        "run": "",
        "why": "new rows",
        "id": "d",
        "retrain": True,
    }
    assert (lines[1].what, lines[1].run) == ({"version": 1, "id": "v"}, "http://run/1")
    assert set(lines[2].what) == {"candidate", "verdict", "policy", "by", "break_glass"}
    (revision,) = journal.lines(journal.PLATFORM)
    assert revision.what == {"revisions": {"readings/2013-01": 2}}
    assert [verification.verify(chain) for chain in verification.chains()] == [[], []]
    assert not any((state / name).exists() for name in FORMER)
    assert {path.name for path in state.iterdir()} == {"journal", "locks", "predictions", "rollouts", "state.json"}
    journal.append("tiny", "decision", {"id": "e"})
    assert journal.lines("tiny")[-1].number == 6


class Killed(BaseException):
    """A kill: no code catches it."""


@contextmanager
def killed_at(number: int) -> Iterator[list[str]]:
    """Die before the operation on a file with this number."""
    begun: list[str] = []

    def dying(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            begun.append(str(args[0]))
            if len(begun) > number:
                raise Killed
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((Path, "unlink"), (Path, "replace"), (Path, "rmdir")):
            patch.setattr(owner, name, dying(getattr(owner, name)))
        patch.setattr(os, "fsync", dying(os.fsync))
        yield begun


def test_killed_anywhere_the_next_command_goes_on(state: Path) -> None:
    """No line is lost or doubled."""
    number, died = 0, True
    while died:
        with killed_at(number) as begun, suppress(Killed):
            migrate()
        died = len(begun) > number
        migrate()
        assert [len(journal.lines(chain)) for chain in ("tiny", journal.PLATFORM)] == [5, 1]
        assert [verification.verify(chain) for chain in ("tiny", journal.PLATFORM)] == [[], []]
        assert json.loads((state / "state.json").read_text()) == {"version": 3}
        number += 3
        for path in (paths.journal("tiny"), paths.journal(journal.PLATFORM), state / "state.json"):
            path.unlink()
        for name, lines in FORMER.items():
            for line in lines:
                json_lines.append(state / name, line)


@pytest.mark.parametrize(
    "line",
    [b"5", b"null", b'{"version": 1}', b'{"time": "soon"}', b'{"time": 5}', b'{"half', b"\0\0", b'{"at": "\\udce9"}'],
)
def test_a_ledger_with_a_line_that_is_none_is_kept(state: Path, line: bytes) -> None:
    """The others are taken over; no command dies of it."""
    ledger = state / "verdicts/tiny.jsonl"
    before = line + b"\n" + ledger.read_bytes() + b'{"time": "2026-11-09T00:00:00"}\n'
    ledger.write_bytes(before)
    migrate()
    assert [line.kind for line in journal.lines("tiny")][-1] == "verdict"
    assert len(journal.lines("tiny")) == 6
    assert verification.verify("tiny") == []
    (aside,) = (state / "torn").iterdir()
    assert aside.read_bytes() == before


def test_older_state_over_a_journal_loses_no_line_of_it(state: Path) -> None:
    """Who restores a backup may leave both; killed in between, nothing is doubled."""
    for name in FORMER:
        (state / name).rename(state / f"{name}.backup")
    journal.append("tiny", "decision", {"id": "own"})
    for name in FORMER:
        (state / f"{name}.backup").rename(state / name)
    number, died = 2, True
    while died:
        with killed_at(number) as begun, suppress(Killed):
            migrate()
        died = len(begun) > number
        number += 5
    assert [line.imported != "" for line in journal.lines("tiny")] == [False, *[True] * 5]
    assert [verification.verify(chain) for chain in verification.chains()] == [[], []]


def test_a_key_that_is_none_stops_the_migration_with_a_message(
    state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No traceback, and no ledger is gone."""
    (tmp_path / "key").write_text("")
    monkeypatch.setenv("EVERGREEN_JOURNAL_KEY", str(tmp_path / "key"))
    with pytest.raises(SystemExit, match=r"could not be brought up to version \d+: .*no private key"):
        settings._check_state_version()
    assert all((state / name).exists() for name in FORMER)
