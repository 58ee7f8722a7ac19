"""A merge of two branches that each took partitions in: real Git, real DVC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.data import merge, revisions, versions
from tasks.ground.errors import DataMissing, DataVersionDiffers, Mistake
from tests.conftest import Project
from tests.tasks.data.conftest import with_git_and_dvc, write

pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # DVC uses it

LOCK = (
    "schema: '2.0'\nstages:\n  train@a:\n    cmd: a\n    outs:\n    - path: build/a\n      hash: md5\n      md5: {}\n"
)


class Branches(Project):
    """A clone with two branches, `main` and `other`, that begin from two months."""

    def git(self, *arguments: str, check: bool = True) -> str:
        """What Git says."""
        return self.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments, check=check).stdout

    def take(self, partitions: dict[str, str | None], lock: str = "") -> None:
        """Take partitions in (None: withdraw), make a version and commit it."""
        for name, content in partitions.items():
            revisions.plan(revisions.partition_of(name))
            (self.root / "data" / name).unlink(missing_ok=True)
            if content is not None:
                write(self.root / "data" / name, content)
        versions.make()
        versions.push()
        if lock:
            (self.root / "dvc.lock").write_text(LOCK.format(lock))
        self.commit()

    def switch(self, branch: str) -> None:
        """Check a branch out, its data too."""
        self.git("checkout", "-q", branch)
        versions.pull()

    def diverge(self, ours: dict[str, str | None], theirs: dict[str, str | None], lock: str = "") -> None:
        """Take something in on either branch, then merge `other` into `main`: Git stops at data.dvc."""
        self.take(ours, lock and f"{lock}1")
        self.switch("other")
        self.take(theirs, lock and f"{lock}2")
        self.switch("main")
        self.git("merge", "other", check=False)
        assert "<<<<<<<" in (self.root / "data.dvc").read_text()

    @property
    def data(self) -> dict[str, str]:
        """What is in data/."""
        folder = self.root / "data"
        return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*.*"))}


@pytest.fixture
def project(tmp_path: Path, work_in: Callable[[Path], Project]) -> Branches:
    """A project that is worked in."""
    write(tmp_path / "project" / ".gitignore", "/data\n/var\n")
    project = Branches(with_git_and_dvc(work_in(tmp_path / "project").root))
    project.take({"orders/1.csv": "one", "orders/2.csv": "two"})
    project.git("branch", "other")
    return project


def test_two_branches_that_each_took_a_month_are_joined(project: Branches) -> None:
    """Both months are in the version; DVC and Git find nothing left to do but the commit."""
    project.diverge({"orders/3.csv": "three"}, {"orders/4.csv": "four"})
    with pytest.raises(DataMissing, match="evergreen merge"):
        versions.make()
    assert "data.dvc: 4 partitions, those of both sides (came: orders/4)" in merge.merge()
    assert sorted(project.data) == [f"orders/{n}.csv" for n in (1, 2, 3, 4)]
    assert versions.present()
    assert project.git("ls-files", "-u") == ""
    project.git("commit", "-qm", "merged")
    assert versions.make() is None
    with pytest.raises(Mistake, match="no merge waits here"):
        merge.merge()


def test_what_one_side_revised_or_withdrew_is_followed_and_dvc_lock_is_joined(project: Branches) -> None:
    """A revision of theirs, a withdrawal of ours; the entry of a stage is taken whole from one side."""
    project.diverge({"orders/1.csv": None}, {"orders/2.csv": "two, corrected"}, lock="0" * 31)
    assert "revised: orders/2" in merge.merge()
    assert project.data == {"orders/2.csv": "two, corrected"}
    assert {name: len(history) for name, history in revisions.read().items()} == {"orders/1": 2, "orders/2": 2}
    assert (project.root / "dvc.lock").read_text() == LOCK.format("0" * 31 + "1")
    assert project.git("status", "--porcelain").count("UU") == 0


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_partition_that_both_changed_is_for_a_person_to_decide(side: str, project: Branches) -> None:
    """Nothing changes until somebody says which counts; the other stays as a former revision."""
    project.diverge({"orders/2.csv": "ours", "orders/3.csv": "x"}, {"orders/2.csv": "theirs"}, lock="0" * 31)
    before = {name: (project.root / name).read_bytes() for name in ("data.dvc", "dvc.lock")}
    with pytest.raises(
        DataVersionDiffers, match=r"another content of orders/2\..*--ours <dataset>.*Nothing was changed"
    ):
        merge.merge()
    with pytest.raises(Mistake, match=r"^order/2: there is nothing to decide; did you mean 'orders/2'"):
        merge.merge(theirs=["order/2", "orders/2"])
    with pytest.raises(Mistake, match=r"^orders/2: either ours counts or theirs, and both are named"):
        merge.merge(["orders/2"], ["orders/2"])
    assert {name: (project.root / name).read_bytes() for name in before} == before
    assert project.data["orders/2.csv"] == "ours"
    merge.merge(**{side: ["orders/2"]})
    assert project.data == {"orders/1.csv": "one", "orders/2.csv": side, "orders/3.csv": "x"}
    history = [versions.content(revision.md5).read_text() for revision in revisions.read()["orders/2"]]
    assert history == ["two", {"ours": "theirs", "theirs": "ours"}[side], side]


def test_a_rebase_is_joined_as_a_merge_is(project: Branches) -> None:
    """Whatever stopped at data.dvc: the index holds both sides."""
    project.take({"orders/3.csv": "three"})
    project.switch("other")
    project.take({"orders/4.csv": "four"})
    project.git("rebase", "main", check=False)
    merge.merge()
    project.git("-c", "core.editor=true", "rebase", "--continue")
    assert sorted(project.data) == [f"orders/{n}.csv" for n in (1, 2, 3, 4)]
    assert versions.present()


def test_data_that_is_in_no_version_is_not_lost_by_a_merge(project: Branches) -> None:
    """A file that was put into data/ by hand stops it, and stays."""
    project.diverge({"orders/3.csv": "three"}, {"orders/4.csv": "four"})
    (project.root / "data/orders/4.csv").write_text("by hand")
    with pytest.raises(DataVersionDiffers, match=r"orders/4\.csv"):
        merge.merge()
    assert project.data["orders/4.csv"] == "by hand"
