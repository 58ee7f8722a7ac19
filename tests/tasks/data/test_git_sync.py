"""Two workers, each with a clone of its own, that commit what they accepted to one branch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.data import git_sync, revisions, versions
from tasks.ground.errors import DataVersionDiffers, Mistake, SourceUnavailable
from tasks.ground.git import Clone
from tasks.ground.params import Git, Params
from tests.conftest import REPOSITORY, Project
from tests.tasks.data.conftest import Killed, write

PUBLISH = """
import sys
from tasks.ground import params, settings
from tasks.data import git_sync, versions
versions.make()
versions.push()
config = params.load().model_copy(update={"git": params.Git(commit=True)})
print(git_sync.publish(config, log=lambda line: print(line, file=sys.stderr)))
"""

LOCK = """schema: '2.0'
stages:
  train@a:
    cmd: python -m tasks train a
    deps:
    - path: data
      md5: {a}
    outs:
    - path: build/a
      md5: {a}{a}
  train@b:
    cmd: python -m tasks train b
    deps:
    - path: data
      md5: {b}
    outs:
    - path: build/b
      md5: {b}{b}
"""


def git(root: Path, *arguments: str) -> str:
    """What git says."""
    return Project(root).run("git", *arguments).stdout.strip()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A bare repository with one commit: params.yaml and DVC's configuration, whose remote is a shared folder."""
    seed = tmp_path / "seed"
    seed.mkdir()
    git(seed, "init", "-q", "-b", "main")
    for name in ("params.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(REPOSITORY / name, seed)
    write(
        seed / ".dvc" / "config",
        f"[core]\n    analytics = false\n    autostage = false\n    remote = shared\n"
        f"['remote \"shared\"']\n    url = {tmp_path / 'shared'}\n",
    )
    shutil.copy(REPOSITORY / ".dvc" / ".gitignore", seed / ".dvc")
    Project(seed).commit()
    git(tmp_path, "clone", "-q", "--bare", "seed", "origin.git")
    return tmp_path / "origin.git"


Worker = Callable[[str], Path]


@pytest.fixture
def worker(origin: Path, tmp_path: Path, work_in: Callable[[Path], Project], monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A clone to work in: the one of this name; settings point at it."""
    for name in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def enter(name: str) -> Path:
        root = tmp_path / name
        if not root.exists():
            git(tmp_path, "clone", "-q", str(origin), name)
        monkeypatch.chdir(root)
        return work_in(root).root

    return enter


def config(branch: str | None = None, commit: bool = True) -> Params:
    """Parameters with a section `git`."""
    return Params.model_construct(git=Git(commit=commit, branch=branch), models={})


def accept(root: Path, **contents: str) -> None:
    """What ingest does of partitions that are good: months of flights."""
    for month, content in contents.items():
        write(root / f"data/flights/2013-{month.removeprefix('m')}.csv", content)
    versions.make()
    versions.push()


def publish(about: str = "", branch: str | None = None) -> str | None:
    """Commit and push, quietly."""
    return git_sync.publish(config(branch), about, lambda _: None)


def follow() -> bool:
    """What ingest begins with: others' commits, and their data."""
    moved = git_sync.follow(config())
    if versions.behind():
        versions.catch_up()
    return moved


@pytest.fixture
def race(worker: Worker) -> tuple[Path, Path]:
    """Two workers, of which the first has published January; the second, which is worked in, has not seen it."""
    first, second = worker("a"), worker("b")
    worker("a")
    accept(first, m01="one")
    publish()
    worker("b")
    return first, second


def at_origin(origin: Path, commit: str = "main") -> dict[str, str]:
    """The partitions of the data version that a commit names."""
    return versions.files_of(versions.parse(git(origin, "show", f"{commit}:data.dvc")).md5)


def test_nothing_is_committed_unless_asked(worker: Worker) -> None:
    """A checkout that somebody works in is left alone, and one that is up to date has nothing to commit."""
    root = worker("a")
    accept(root, m01="a")
    assert git_sync.publish(config(commit=False)) is None
    assert git(root, "log", "--oneline").count("\n") == 0
    assert publish()
    assert publish() is None


def test_the_two_files_alone_are_committed_and_the_message_tells_the_change(worker: Worker, origin: Path) -> None:
    """Whatever else is edited, staged or new stays as it is; the subject names the partitions."""
    root = worker("a")
    accept(root, m01="a")
    (root / "params.yaml").write_text((root / "params.yaml").read_text() + "# mine\n")
    (root / "staged.py").write_text("x = 1\n")
    git(root, "add", "staged.py")
    commit = publish()
    assert git(root, "show", "--name-only", "--format=", "HEAD").split() == ["data.dvc"]
    assert git(root, "diff", "--name-only").split() == ["params.yaml"]
    assert git(root, "diff", "--cached", "--name-only").split() == ["staged.py"]
    assert git(origin, "rev-parse", "main") == commit
    subject, _, *body = git(root, "log", "-1", "--format=%B").splitlines()
    assert subject == "data: flights/2013-01.csv came"
    assert body[:2] == ["+ flights/2013-01.csv", f"data version {versions.current()}"]


def test_a_verdict_is_the_subject(worker: Worker) -> None:
    """After a training, dvc.lock is committed with what came of it."""
    root = worker("a")
    accept(root, m01="a")
    publish()
    (root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    git(root, "add", "dvc.yaml")
    publish("flight_delay: candidate 0123 was promoted\nit is better")
    assert git(root, "log", "-1", "--format=%s") == "flight_delay: candidate 0123 was promoted it is better"
    assert git(root, "show", "--name-only", "--format=", "HEAD").split() == ["dvc.lock"]


def test_who_loses_the_race_joins_what_both_accepted(race: tuple[Path, Path], worker: Worker, origin: Path) -> None:
    """Neither worker's partition is lost; the history is a line; and both versions were pushed before their commits."""
    first, second = race
    accept(second, m02="two")
    publish()
    assert sorted(at_origin(origin)) == ["flights/2013-01.csv", "flights/2013-02.csv"]
    assert (second / "data/flights/2013-01.csv").read_text() == "one"
    assert git(origin, "log", "--format=%p", "main").split("\n")[0].count(" ") == 0
    assert git(origin, "rev-list", "--count", "main") == "3"
    worker("a")
    assert follow()
    assert (first / "data/flights/2013-02.csv").read_text() == "two"
    assert not follow()


@pytest.mark.slow
def test_two_processes_that_race_lose_nothing(worker: Worker, origin: Path) -> None:
    """Really at once, twice: the union is at the origin, and each commit has its data."""
    roots = [worker("a"), worker("b")]
    for turn in range(2):
        for root in roots:
            write(root / f"data/flights/{root.name}-{turn}.csv", f"{root.name} {turn}")
        started = [_publishing(root) for root in roots]
        for process in started:
            _, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
    assert sorted(at_origin(origin)) == sorted(f"flights/{name}-{n}.csv" for name in "ab" for n in range(2))
    fresh = worker("fresh")
    versions.pull()
    assert versions.present()
    assert len(list((fresh / "data" / "flights").iterdir())) == 4
    for commit in git(origin, "rev-list", "main").split()[:-1]:
        assert at_origin(origin, commit), f"{commit} names data that nobody has"


def _publishing(root: Path) -> subprocess.Popen[str]:
    environment = {"EVERGREEN_ROOT": str(root), "PYTHONPATH": str(REPOSITORY)}
    environment["DVC_SITE_CACHE_DIR"] = str(root / "var" / "dvc")
    command = [sys.executable, "-P", "-c", PUBLISH]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=root, env=os.environ | environment, stdout=pipe, stderr=pipe, text=True)


def test_the_same_name_with_other_content_is_theirs_and_is_told(race: tuple[Path, Path], origin: Path) -> None:
    """Who was first counts; the other content is known as a former revision, which can be made to count."""
    _, second = race
    accept(second, m01="another", m02="two")
    with pytest.raises(DataVersionDiffers, match=r"accepted flights/2013-01 with other content.*theirs counts"):
        publish()
    assert (second / "data/flights/2013-01.csv").read_text() == "one"
    assert sorted(at_origin(origin)) == ["flights/2013-01.csv", "flights/2013-02.csv"]
    assert publish() is None
    history = revisions.read()["flights/2013-01"]
    assert [versions.content(revision.md5).read_text() for revision in history] == ["another", "one"]


def test_a_revision_and_a_withdrawal_of_another_worker_are_followed(worker: Worker, origin: Path) -> None:
    """Joined with what came here meanwhile: nothing that was replaced or withdrawn there comes back from here."""
    first = worker("a")
    accept(first, m01="1", m02="2", m03="3")
    publish()
    second = worker("b")
    follow()
    worker("a")
    for month in ("01", "02"):
        revisions.plan(f"flights/2013-{month}")
    (first / "data/flights/2013-02.csv").unlink()
    accept(first, m01="corrected")
    publish()
    assert "~ flights/2013-01.csv\n- flights/2013-02.csv" in git(origin, "log", "-1", "--format=%B", "main")
    worker("b")
    accept(second, m04="4")
    publish()
    assert sorted(at_origin(origin)) == [f"flights/2013-0{n}.csv" for n in (1, 3, 4)]
    assert (second / "data/flights/2013-01.csv").read_text() == "corrected"
    histories = revisions.read()
    assert {name: len(history) for name, history in histories.items()} == {"flights/2013-01": 2, "flights/2013-02": 2}


@pytest.mark.parametrize("at", ["fetch", "reset", "commit", "push"])
def test_a_kill_in_the_middle_of_a_join_loses_nothing(
    at: str, race: tuple[Path, Path], origin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after any Git command: the next ingest makes the version of both, and pushes it."""
    _, second = race
    accept(second, m02="two")
    as_it_is, joining = Clone.attempt, list[str]()

    def kill(self: Clone, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        done = as_it_is(self, *arguments, **more)
        joining.append(next(word for word in arguments if not word.startswith("-") and "=" not in word))
        if joining[-1] == at and "fetch" in joining:
            raise Killed
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Clone, "attempt", kill)
        with pytest.raises(Killed):
            publish()
    accept(second, m02="two")  # it still lies in the landing zone: ingest takes it again
    publish()
    assert sorted(at_origin(origin)) == ["flights/2013-01.csv", "flights/2013-02.csv"]


def test_dvc_lock_is_joined_by_whole_stages() -> None:
    """An entry is true as a whole: outputs of one side are never put beside inputs of the other."""
    base, ours, theirs = LOCK.format(a=1, b=1), LOCK.format(a=2, b=1), LOCK.format(a=1, b=3)
    assert git_sync.joined_lock(base, ours, theirs) == LOCK.format(a=2, b=3)
    both = git_sync.joined_lock(base, LOCK.format(a=2, b=1), LOCK.format(a=3, b=3))
    assert both == LOCK.format(a=2, b=3)
    assert git_sync.joined_lock(None, None, theirs) == theirs
    assert git_sync.joined_lock(None, ours, None) == ours


def test_commits_by_hand_are_not_moved(race: tuple[Path, Path]) -> None:
    """A person's unpushed work is theirs to rebase: the error says so, and nothing was touched."""
    _, second = race
    (second / "notes.md").write_text("mine\n")
    git(second, "add", "notes.md")
    git(second, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "by hand")
    accept(second, m02="two")
    with pytest.raises(Mistake, match=r"commits by hand \(notes\.md\).*git pull --rebase"):
        publish()
    assert "by hand" in git(second, "log", "--format=%s")
    assert (second / "data/flights/2013-02.csv").read_text() == "two"


def test_a_worktree_of_a_revision_pushes_to_the_branch_it_is_told(worker: Worker, origin: Path, tmp_path: Path) -> None:
    """`git worktree add --detach`: no branch is checked out, so params.yaml must name one."""
    root = worker("a")
    git(root, "worktree", "add", "-q", "--detach", str(tmp_path / "tree"))
    accept(worker("tree"), m01="one")
    with pytest.raises(Mistake, match=r"no branch is checked out here.*set git\.branch"):
        publish()
    assert publish(branch="main") == git(origin, "rev-parse", "main")
    worker("a")
    with pytest.raises(Mistake, match=r"git\.branch is 'other', and 'main' is checked out here"):
        publish(branch="other")


def test_a_remote_that_is_not_there_is_told_without_its_password(worker: Worker) -> None:
    """What was accepted stays committed here, and is pushed by the next run."""
    root = worker("a")
    accept(root, m01="one")
    url = git(root, "remote", "get-url", "origin")
    git(root, "remote", "set-url", "origin", "http://user:secret@127.0.0.1:9/nowhere.git")
    with pytest.raises(SourceUnavailable, match=r"git push failed.*nothing was lost") as caught:
        publish()
    assert "secret" not in str(caught.value)
    git(root, "remote", "set-url", "origin", url)
    assert publish()
