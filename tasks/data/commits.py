"""commits: data.dvc and dvc.lock as Git keeps them, for a worker with a clone or a worktree of its own.

The one module that talks to Git, and only with `git.commit: true` in params.yaml. It commits those two files and no
other, brings the data to the remote before the commit that names it, and when another worker was first, joins both:
what either of them accepted is in the version that follows. Killed anywhere, the next run ends the same: data/ is only
ever added to before anything is committed, and a file leaves the landing zone last.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Callable

import yaml

from tasks import files, settings
from tasks.data import collect, versions
from tasks.errors import DataVersionDiffers, Mistake, SourceUnavailable
from tasks.params import Git, Params

OURS = ("data.dvc", "dvc.lock")
"""What is committed; nothing else ever is."""

TRIES = 10
"""How often another worker may be first."""

SECONDS = 120
"""How long one Git command may take."""

Log = Callable[[str], object]


def publish(params: Params, about: str = "", log: Log = print) -> str | None:
    """Commit data.dvc and dvc.lock and push: first the data, then the commit. Gives the commit; None: nothing to do.

    Args:
        params: its section `git` says whether, to which branch, of which remote.
        about: the subject of the commit, such as a verdict; without it, the partitions that came.
        log: is told of every step.

    Raises:
        Mistake: this checkout is not one to commit from: another branch, or commits by hand that are not pushed.
        SourceUnavailable: Git or the DVC remote cannot be reached.
        DataVersionDiffers: another worker accepted a partition of the same name with other content: theirs was kept.
    """
    if not params.git.commit:
        return None
    with files.lock("git"):
        branch = _branch(params.git)
        if not _dirty() and _pushed(params.git, branch):
            return None
        _commit(about, log)
        replaced = _push_or_join(params.git, branch, about, log)
        if replaced:
            raise DataVersionDiffers(
                f"another worker accepted {', '.join(sorted(replaced))} with other content, and was first: theirs is "
                f"kept. What was delivered here is looked at again, and quarantined, by the next ingest"
            )
        return _git("rev-parse", "HEAD")


def follow(params: Params) -> bool:
    """Take over what others pushed, where nothing here is in its way; whether HEAD moved.

    Raises:
        SourceUnavailable: the Git remote cannot be reached.
    """
    if not params.git.commit:
        return False
    with files.lock("git"):
        there = _fetch(params.git, _branch(params.git))
        if there is None or not _is_ancestor("HEAD", there) or _is_ancestor(there, "HEAD") or _dirty():
            return False
        _git("reset", "-q", "--keep", there)
        return True


# ── committing ────────────────────────────────────────────────────────────────────────────────────


def _commit(about: str, log: Log) -> None:
    """Commit what differs of the two files; whatever else is changed or staged stays as it is."""
    if not (changed := _dirty()):
        return
    message = _message(about)
    _git("add", "--", *changed)
    _git(*_identity(), "commit", "-q", "--only", "-m", message, "--", *changed)
    log(f"committed {' and '.join(changed)}: {message.splitlines()[0]}")


def _message(about: str) -> str:
    """The change, told: subject, the partitions that came, the data version."""
    before, now = _version_at("HEAD"), versions.current()
    lines = []
    if now != before:
        known, listing = versions.files_of(before) if before else {}, versions.tree()
        came = sorted(name for name in listing if name not in known)
        lines += [*(f"+ {name}" for name in came), f"data version {now}"]
        partitions = ", ".join(came[:3]) + (f" and {len(came) - 3} more" if len(came) > 3 else "")
        about = about or f"data: {partitions} came"
    return "\n".join([" ".join((about or "what was made of it").split())[:200], *([""] if lines else []), *lines])


def _dirty() -> list[str]:
    """Which of the two files differ from HEAD, or are new."""
    told = _git("status", "--porcelain", "--untracked-files=all", "--", *OURS)
    return [name for name in OURS if re.search(rf"^.. {re.escape(name)}$", told, re.MULTILINE)]


def _identity() -> list[str]:
    """Who commits, where nobody told Git."""
    known = _try("config", "user.email").returncode == 0 or os.environ.get("GIT_COMMITTER_EMAIL")
    return [] if known else ["-c", "user.name=Evergreen", "-c", "user.email=evergreen@localhost"]


def _branch(git: Git) -> str:
    """The branch to push to: the one that is checked out, or with a detached HEAD the one that params.yaml names."""
    here = _try("symbolic-ref", "--quiet", "--short", "HEAD").stdout.strip()
    if git.branch and here and here != git.branch:
        raise Mistake(
            f"params.yaml: git.branch is {git.branch!r}, and {here!r} is checked out here: "
            f"`git checkout {git.branch}`, or leave git.branch null"
        )
    if not (git.branch or here):
        raise Mistake("no branch is checked out here, and params.yaml names none: set git.branch to where to push")
    return git.branch or here


# ── pushing, and who was first ────────────────────────────────────────────────────────────────────


def _push_or_join(git: Git, branch: str, about: str, log: Log) -> set[str]:
    """Push, joining with whoever was first until nobody is; gives the partitions whose content was another there."""
    replaced: set[str] = set()
    for attempt in range(TRIES):
        _push_data()
        if _push(git, branch):
            log(f"pushed to {git.remote}/{branch}")
            return replaced
        log(f"{git.remote}/{branch} has moved: joining what is there with what is here")
        replaced |= set(_join(git, branch, about, log))
        time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))  # noqa: S311 - so that two do not meet again
    raise SourceUnavailable(f"{git.remote}/{branch} moved {TRIES} times while this pushed; run again")


def _push_data() -> None:
    """What the commit names, to the DVC remote: the data version, and with dvc.lock what the stages made."""
    versions.push()
    if (settings.ROOT / "dvc.lock").exists():
        versions.push_made()


def _pushed(git: Git, branch: str) -> bool:
    """Whether the remote branch, as last seen, already has what is here."""
    return _try("rev-parse", "--verify", "-q", f"{git.remote}/{branch}").returncode == 0 and _is_ancestor(
        "HEAD", f"{git.remote}/{branch}"
    )


def _push(git: Git, branch: str) -> bool:
    """Push; False when somebody was first."""
    done = _try("push", "-q", git.remote, f"HEAD:refs/heads/{branch}")
    if done.returncode == 0:
        _try("fetch", "-q", git.remote, f"+refs/heads/{branch}:refs/remotes/{git.remote}/{branch}")
        return True
    if re.search(r"\[rejected\]|non-fast-forward|fetch first|cannot lock ref|failed to update ref", done.stderr):
        return False
    raise _unreachable("push", done.stderr)


def _fetch(git: Git, branch: str) -> str | None:
    """The newest commit of the remote branch; None when there is no such branch yet."""
    done = _try("fetch", "-q", git.remote, f"+refs/heads/{branch}:refs/remotes/{git.remote}/{branch}")
    if done.returncode and "couldn't find remote ref" in done.stderr:
        return None
    if done.returncode:
        raise _unreachable("fetch", done.stderr)
    return _git("rev-parse", f"{git.remote}/{branch}")


def _join(git: Git, branch: str, about: str, log: Log) -> list[str]:
    """Put what is here on top of what is there; gives the partitions whose content was another there.

    Data first, HEAD last: killed in between, data/ holds the files of both, and the next run makes their version.
    """
    there = _fetch(git, branch)
    if there is None or _is_ancestor(there, "HEAD"):
        return []
    base = _git("merge-base", "HEAD", there)
    by_hand = [name for name in _git("diff", "--name-only", base, "HEAD").splitlines() if name not in OURS]
    if by_hand:
        raise Mistake(
            f"{git.remote}/{branch} has moved, and this checkout has commits by hand ({', '.join(by_hand[:3])}). "
            f"Rebase and push them by hand (`git pull --rebase`); a worker wants a clone of its own"
        )
    lock = _joined_lock(*(_show(commit, "dvc.lock") for commit in (base, "HEAD", there)))
    replaced: list[str] = []
    if version := _version_at(there):
        replaced = versions.join(version, there)
    texts = {"data.dvc": _read("data.dvc"), "dvc.lock": lock}
    _git("checkout", "-q", "HEAD", "--", *[name for name in OURS if _show("HEAD", name) is not None])
    _git("reset", "-q", "--keep", there)
    for name, text in texts.items():
        if text is not None:
            files.write_text(settings.ROOT / name, text)
    _commit(about, log)
    return replaced


def _joined_lock(base: str | None, ours: str | None, theirs: str | None) -> str | None:
    """dvc.lock of both, stage by stage: an entry says what was made from what, and is taken whole from one side.

    Joined line by line as Git does it, an entry could claim that outputs of ours were made from inputs of theirs.
    """
    if ours is None or theirs is None:
        return ours or theirs
    was, here, there = (_entries(text or "") for text in (base, ours, theirs))
    names = sorted({*here, *there}, key=[*there, *here].index)
    kept = [here[name] if name in here and here[name] != was.get(name) else there.get(name, "") for name in names]
    return theirs.split("stages:\n")[0] + "stages:\n" + "".join(kept)


def _entries(text: str) -> dict[str, str]:
    """The stages of a dvc.lock, each as its text; DVC writes them two blanks deep."""
    found: dict[str, str] = {}
    for part in re.split(r"(?m)^(?=  \S)", text.partition("stages:\n")[2]):
        if part:
            found[part.split(":", 1)[0].strip()] = part
    return found


# ── Git ───────────────────────────────────────────────────────────────────────────────────────────


def _version_at(commit: str) -> str | None:
    """The data version that a commit names."""
    text = _show(commit, "data.dvc")
    return str(yaml.safe_load(text)["outs"][0]["md5"]) if text else None


def _show(commit: str, name: str) -> str | None:
    done = _try("show", f"{commit}:./{name}")
    return done.stdout if done.returncode == 0 else None


def _read(name: str) -> str | None:
    path = settings.ROOT / name
    return path.read_text(encoding="utf-8") if path.exists() else None


def _is_ancestor(one: str, of: str) -> bool:
    return _try("merge-base", "--is-ancestor", one, of).returncode == 0


def _git(*arguments: str) -> str:
    done = _try(*arguments)
    if done.returncode:
        what = next(word for word in arguments if not word.startswith("-") and "=" not in word)
        raise SourceUnavailable(f"git {what} failed: {_told(done.stderr)}")
    return done.stdout.strip("\n")


def _try(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = ["git", *arguments]
    try:
        return subprocess.run(
            command, cwd=settings.ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise SourceUnavailable(f"git {arguments[0]} did not end within {SECONDS} s: is the remote there?") from None


def _unreachable(what: str, said: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"git {what} failed: {_told(said)}. Check `git.remote` in params.yaml, the network and the credentials, "
        f"then run again: nothing was lost"
    )


def _told(text: str) -> str:
    return collect.masked(" ".join(text.split())) or "it said nothing"
