"""Merge of data versions, where `git merge` (or rebase, cherry-pick, stash pop) stops at data.dvc.

Git sees two hashes and can only keep one, and with it the partitions of one branch. Here both sides are joined
partition by partition, as git_sync joins two workers; where both gave one partition another content, a person decides.

DVC's own merge driver (`dvc git-hook merge-driver`) joins directories too, but has to be configured in each clone,
leaves dvc.lock in conflict, and refuses where anything was changed or removed: with revisions, that is every day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tasks.data import git_sync, revisions, versions
from tasks.ground import files, settings
from tasks.ground.errors import DataVersionDiffers, Mistake, did_you_mean
from tasks.ground.git import Clone
from tasks.ground.words import listed


def merge(ours: Sequence[str] = (), theirs: Sequence[str] = ()) -> str:
    """Make data.dvc (and dvc.lock) of both sides of the merge that waits in Git's index; gives in words what it did.

    Args:
        ours: partitions (`<dataset>/<partition>`) of which our content counts, where both sides have another.
        theirs: those of which theirs does. The other content stays as a former revision.

    Raises:
        Mistake: no merge waits.
        DataVersionDiffers: both sides have another content of a partition that neither `ours` nor `theirs` names; or
            data/ holds what is in no version.
        SourceUnavailable: neither the cache nor the remote has all of both versions.
    """
    clone = Clone(settings.ROOT)
    waiting = [name for name in git_sync.OURS if clone.run("ls-files", "-u", "--", name)]
    if not waiting:
        raise Mistake(
            "no merge waits here: Git's index has one version of data.dvc and of dvc.lock. If a file holds conflict "
            "markers nevertheless, `git checkout HEAD -- data.dvc dvc.lock` brings the committed ones back"
        )
    lines = []
    with _back_on_failure("dvc.lock"):  # which DVC reads, to make a data version
        if "dvc.lock" in waiting:
            text = git_sync.joined_lock(*(clone.show(f":{stage}", "dvc.lock") for stage in (1, 2, 3)))
            files.write_text(settings.ROOT / "dvc.lock", text or "")
            lines.append("dvc.lock: each stage as the side has it that ran it; the next training sees what is to run")
        if "data.dvc" in waiting:
            lines.append(_join_data(clone, ours, theirs))
    clone.run("add", "--", *waiting)
    return "\n".join([*lines, "Now `git commit`, or go on with what you merged for (`git rebase --continue`)"])


@contextmanager
def _back_on_failure(name: str) -> Iterator[None]:
    path = settings.ROOT / name
    before = path.read_bytes() if path.exists() else None
    try:
        yield
    except BaseException:
        if before is not None:
            path.write_bytes(before)
        raise


def _join_data(clone: Clone, ours_for: Sequence[str], theirs_for: Sequence[str]) -> str:
    base, ours, theirs = (clone.show(f":{stage}", "data.dvc") for stage in (1, 2, 3))
    if ours is None or theirs is None:
        raise Mistake("one side of the merge removed data.dvc: decide by `git add data.dvc` or `git rm data.dvc`")
    with files.lock("data"), _back_on_failure("data.dvc"):
        files.write_text(settings.ROOT / "data.dvc", ours)
        here = versions.side(ours)
        joined, conflicts = revisions.join(versions.side(base), here, versions.side(theirs), theirs_for)
        _refuse_undecided(conflicts, {*ours_for}, {*theirs_for})
        versions.refuse_strangers(joined.listing)
        versions.adopt(joined, "of both sides of a merge")
    changes = "; ".join(
        f"{what}: {', '.join(map(revisions.partition_of, names))}"
        for what, names in revisions.differences(here.listing, joined.listing).items()
        if names
    )
    partitions = len(revisions.by_partition(joined.listing))
    return f"data.dvc: {partitions} partitions, those of both sides ({changes or 'all of them were here'})"


def _refuse_undecided(conflicts: list[str], ours: set[str], theirs: set[str]) -> None:
    if both := sorted(ours & theirs):
        raise Mistake(f"{listed(both, 5)}: either ours counts or theirs, and both are named")
    if strange := sorted((ours | theirs) - {*conflicts}):
        raise Mistake(
            f"{strange[0]}: there is nothing to decide{did_you_mean(strange[0], conflicts)}. Nothing was changed"
        )
    if undecided := sorted({*conflicts} - ours - theirs):
        raise DataVersionDiffers(
            f"both sides have another content of {listed(undecided, 5)}. Say which counts: `evergreen merge --ours "
            f"<dataset>/<partition>` or `--theirs …`, each as often as needed; the other stays as a former revision. "
            f"Nothing was changed"
        )
