"""Git, as flows ask it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tasks.ground import git
from tasks.ground.errors import SourceUnavailable
from tasks.ground.git import Clone


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """A clone with one commit and a folder in it, seen from that folder; nobody has told Git who they are."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "clone" / "folder"
    folder.mkdir(parents=True)
    clone = Clone(folder)
    clone.run("init", "-q", "-b", "main", "..")
    (folder / "a").write_bytes(b"one\r\ntwo\n\xff")
    clone.commit("the beginning", "a")
    return clone


def test_names_are_relative_to_the_folder(here: Clone) -> None:
    """A clone may be seen from any folder in it."""
    (here.at / "a").write_text("other")
    (here.at / "new file").write_text("new")
    (here.at.parent / "b").write_text("new")
    assert here.changed("a", "b", "c", "new file") == ["a", "new file"]
    commit = here.commit("more", "a")
    assert here.show(commit, "a") == "other"
    assert here.show(commit, "b") is None
    assert here.changed("a") == []


def test_a_file_is_given_as_it_is(here: Clone) -> None:
    """Line ends and bytes that are no text: it is edited, and given back."""
    text = here.show("HEAD", "a")
    assert text == "one\r\ntwo\n\udcff"
    assert here.run("hash-object", "--stdin", "--no-filters", given=text) == here.run("rev-parse", "HEAD:./a")


def test_a_commit_has_an_author_where_nobody_told_git(here: Clone) -> None:
    """And where somebody did, it is they."""
    assert here.run("log", "-1", "--format=%an <%ae>") == "Evergreen <evergreen@localhost>"
    here.run("config", "user.email", "me@example.org")
    assert here.identity() == []


def test_a_lost_race_is_no_outage(here: Clone, tmp_path: Path) -> None:
    """Who was second is told so; a remote that does not answer is an error, and its password stays out of it."""
    subprocess.run(["git", "clone", "-q", "--bare", here.at.parent, tmp_path / "origin.git"], check=True)
    here.run("remote", "add", "origin", str(tmp_path / "origin.git"))
    first = here.run(*here.identity(), "commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "first")
    second = here.run(*here.identity(), "commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "second")
    assert here.push("origin", "main", first)
    assert not here.push("origin", "main", second)
    assert here.fetch("origin", "main") == first
    assert here.fetch("origin", "nowhere") is None
    here.run("remote", "set-url", "origin", "http://user:secret@127.0.0.1:9/nowhere.git")
    for ask in (lambda: here.push("origin", "main"), lambda: here.fetch("origin", "main")):
        with pytest.raises(SourceUnavailable, match=r"git (push|fetch) failed.*Check the remote 'origin'") as caught:
            ask()
        assert "secret" not in str(caught.value)


def test_what_does_not_end_is_ended(here: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A remote that hangs must not hang a flow."""
    monkeypatch.setattr(git, "SECONDS", 0.2)
    with pytest.raises(SourceUnavailable, match=r"git wait did not end within 0\.2 s"):
        here.attempt("-c", "alias.wait=!sleep 5", "wait")
