"""Git synchronisation of data.dvc and dvc.lock, for a worker with a clone or a worktree of its own.

Only with `git.commit: true` in params.yaml. It commits those two files and no other, brings the data to the remote
before the commit that names it, and joins both when another worker was first: the version that follows has what either
accepted. Killed anywhere, the next run ends the same: files are only added to data/ before anything is committed, and a
file leaves the landing zone last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tasks.data import dvc_store, revisions, versions
from tasks.data.revisions import Side
from tasks.ground import files, leases, settings
from tasks.ground.errors import DataVersionDiffers, Mistake
from tasks.ground.git import Clone, until_first
from tasks.ground.params import Git, Params
from tasks.ground.words import listed

OURS = ("data.dvc", "dvc.lock")
"""What is committed; nothing else ever is."""

SIGNS = {"came": "+", "revised": "~", "withdrawn": "-"}

Log = Callable[[str], object]


def publish(params: Params, about: str = "", log: Log = print) -> str | None:
    """Commit data.dvc and dvc.lock and push: first the data, then the commit. Gives the commit; None: nothing to do.

    Args:
        params: its section `git` says whether, to which branch, of which remote.
        about: the subject of the commit, such as a verdict; without it, the partitions that came.
        log: gets a line per step.

    Raises:
        Mistake: this checkout is not one to commit from: another branch, or commits by hand that are not pushed.
        SourceUnavailable: Git or the DVC remote cannot be reached.
        DataVersionDiffers: another worker accepted a partition of the same name with other content: theirs counts.
    """
    if not params.git.commit:
        return None
    with files.lock("git"):
        branch = branch_of(params.git)
        if not _dirty() and _pushed(params.git, branch):
            return None
        _commit(about, log)
        replaced = _push_or_join(params.git, branch, about, log)
        if replaced:
            raise DataVersionDiffers(
                f"another worker accepted {', '.join(sorted(replaced))} with other content, and was first: theirs "
                f"counts. What was delivered here is kept as a former revision: `evergreen revisions` lists "
                f"them, and `evergreen revert` makes one count"
            )
        return _here().run("rev-parse", "HEAD")


def follow(params: Params) -> bool:
    """Take over what others pushed, where nothing here is in its way; whether HEAD moved.

    Raises:
        SourceUnavailable: the Git remote cannot be reached.
    """
    if not params.git.commit:
        return False
    with files.lock("git"):
        here = _here()
        tip = here.fetch(params.git.remote, branch_of(params.git))
        if tip is None or not here.is_ancestor("HEAD", tip) or here.is_ancestor(tip, "HEAD") or _dirty():
            return False
        here.run("reset", "-q", "--keep", tip)
        return True


def _commit(about: str, log: Log) -> None:
    """Commit what differs of the two files; whatever else is changed or staged stays as it is."""
    if not (changed := _dirty()):
        return
    message = _message(about)
    _here().commit(message, *changed)
    log(f"committed {' and '.join(changed)}: {message.splitlines()[0]}")


def _message(about: str) -> str:
    """Subject, the partitions that came, the data version."""
    committed, now = _here().show("HEAD", "data.dvc"), versions.current()
    before = versions.parse(committed).md5 if committed else None
    lines = []
    if now != before:
        changed = revisions.differences(versions.files_of(before) if before else {}, versions.tree())
        lines = ["", *(f"{SIGNS[what]} {name}" for what, names in changed.items() for name in names)]
        lines.append(f"data version {now}")
        about = about or f"data: {_summary(changed)}"
    return "\n".join([" ".join((about or "what was made of it").split())[:200], *lines])


def _summary(changed: Mapping[str, list[str]]) -> str:
    phrases = [f"{listed(names, 3)} {what}" for what, names in changed.items() if names]
    return "; ".join(phrases) or "the same files"


def _dirty() -> list[str]:
    return _here().changed(*OURS)


def branch_of(git: Git) -> str:
    """The branch to push to: the one that is checked out, or with a detached HEAD the one that params.yaml names.

    Raises:
        Mistake: another one is checked out than params.yaml names, or neither names one.
    """
    here = _here().checked_out()
    if git.branch and here and here != git.branch:
        raise Mistake(
            f"params.yaml: git.branch is {git.branch!r}, and {here!r} is checked out here: "
            f"`git checkout {git.branch}`, or leave git.branch null"
        )
    if (branch := git.branch or here) is None:
        raise Mistake("no branch is checked out here, and params.yaml names none: set git.branch to where to push")
    return branch


def _push_or_join(git: Git, branch: str, about: str, log: Log) -> set[str]:
    """Push, joining with what others pushed first; gives the partitions whose content was another there.

    First what the commit names goes to the DVC remote: the data version, and what the stages made.
    """
    replaced: set[str] = set()
    for _ in until_first(git.remote, branch):
        versions.push()
        if (settings.ROOT / "dvc.lock").exists():
            dvc_store.push_made()
        with leases.fenced():
            was_first = _here().push(git.remote, branch)
        if was_first:
            log(f"pushed to {git.remote}/{branch}")
            return replaced
        log(f"{git.remote}/{branch} has moved: joining what is there with what is here")
        replaced |= set(_join(git, branch, about, log))
    raise AssertionError("until_first raises after the last try")


def _pushed(git: Git, branch: str) -> bool:
    """Whether the remote branch, as last seen, already has what is here."""
    tip = f"{git.remote}/{branch}"
    return _here().attempt("rev-parse", "--verify", "-q", tip).returncode == 0 and _here().is_ancestor("HEAD", tip)


def _join(git: Git, branch: str, about: str, log: Log) -> list[str]:
    """Put what is here on top of the remote branch; gives the partitions whose content was another there.

    Data first, HEAD last: killed in between, data/ holds the files of both, and the next run makes their version.
    """
    here = _here()
    tip = here.fetch(git.remote, branch)
    if tip is None or here.is_ancestor(tip, "HEAD"):
        return []
    base = here.run("merge-base", "HEAD", tip)
    by_hand = [name for name in here.run("diff", "--name-only", base, "HEAD").splitlines() if name not in OURS]
    if by_hand:
        raise Mistake(
            f"{git.remote}/{branch} has moved, and this checkout has commits by hand ({', '.join(by_hand[:3])}). "
            f"Rebase and push them by hand (`git pull --rebase`); a worker wants a clone of its own"
        )
    lock = joined_lock(*(here.show(commit, "dvc.lock") for commit in (base, "HEAD", tip)))
    replaced: list[str] = []
    if theirs := here.show(tip, "data.dvc"):
        replaced = _join_data(theirs, here.show(base, "data.dvc"))
    path = settings.ROOT / "data.dvc"
    texts = {"data.dvc": path.read_text(encoding="utf-8") if path.exists() else None, "dvc.lock": lock}
    here.run("checkout", "-q", "HEAD", "--", *[name for name in OURS if here.show("HEAD", name) is not None])
    here.run("reset", "-q", "--keep", tip)
    for name, text in texts.items():
        if text is not None:
            files.write_text(settings.ROOT / name, text)
    _commit(about, log)
    return replaced


def _join_data(theirs: str, base: str | None) -> list[str]:
    """Make a version of what data/ holds and of the one that their data.dvc names; `base` is where both began.

    Gives the partitions of which both took another content: theirs counts, ours is a former revision.
    """
    if versions.parse(theirs).md5 == versions.current():
        return []
    with files.lock("data"):
        ours, other = Side(versions.tree(), revisions.read()), versions.side(theirs)
        before = Side(versions.files_of(versions.parse(base).md5), revisions.parse(base)) if base else Side({}, {})
        every = {*revisions.by_partition(ours.listing), *revisions.by_partition(other.listing)}
        joined, conflicts = revisions.join(before, ours, other, every)
        versions.adopt(joined, "of another worker")
    return conflicts


def joined_lock(base: str | None, ours: str | None, theirs: str | None) -> str | None:
    """A dvc.lock of both sides, stage by stage: an entry says what was made from what, and is kept whole.

    Joined line by line as Git does it, an entry could claim that outputs of ours were made from inputs of theirs.
    """
    if ours is None or theirs is None:
        return ours or theirs
    former, our, their = (_entries(text or "") for text in (base, ours, theirs))
    names = sorted({*our, *their}, key=[*their, *our].index)
    kept = [our[name] if name in our and our[name] != former.get(name) else their.get(name, "") for name in names]
    return theirs.split("stages:\n")[0] + "stages:\n" + "".join(kept)


def _entries(text: str) -> dict[str, str]:
    """The stages of a dvc.lock, each as its text; DVC writes them two blanks deep."""
    parts = re.split(r"(?m)^(?=  \S)", text.partition("stages:\n")[2])
    return {part.split(":", 1)[0].strip(): part for part in parts if part}


def _here() -> Clone:
    return Clone(settings.ROOT)
