"""Projects of one's own: `evergreen new` makes one of a checkout of the platform, `evergreen upgrade` merges a newer.

A project is a commit of the platform without what `template/left-out.txt` names, with the files of `template/` laid
over it: these are the project's own from then on. `.evergreen.yaml` remembers the commit. An upgrade is the difference
between two such trees, picked onto the project by Git (cherry-pick: three-way, and its conflicts are solved as always).
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.ground import addresses, files, settings, words, yaml_reader
from tasks.ground.errors import Mistake, SourceUnavailable, did_you_mean
from tasks.ground.git import Clone

MARKER = ".evergreen.yaml"
TEMPLATE, LEFT_OUT = "template", "template/left-out.txt"


def new(folder: Path, remote: str | None = None, example: str | None = None) -> Iterator[str]:
    """Make a project in a folder that is not there yet, or is empty; gives what was done, in words.

    Args:
        folder: where.
        remote: the URL of its DVC remote; None: a folder of the project.
        example: a folder of `examples/` to begin with.

    Raises:
        Mistake: the folder is in use, the remote's URL holds a secret, or the platform is no Git checkout.
    """
    if remote and addresses.masked(remote) != remote:
        shown = addresses.masked(remote)
        raise Mistake(
            f"--remote {shown}: .dvc/config is committed, and what stands before the @ would be. Name the URL without "
            f"it, then `dvc remote modify --local local access_key_id …` (and `secret_access_key`) in the project"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Mistake(f"{folder} is there already, and not empty: name another folder")
    platform, commit = _this_platform()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with settings.for_others(folder), TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as beside:
        root = Path(beside) / folder.name
        _lay_down(platform, commit, root, root)
        _remember(root, platform, commit)
        files.write_text(root / "README.md", (root / "README.md").read_text().replace("{name}", folder.name))
        if remote:
            config = root / ".dvc" / "config"
            files.write_text(config, re.sub(r"url = .*", lambda _: f"url = {remote}", config.read_text()))
        if example:
            _lay_example(platform, commit, root, example)
        _first_commit(root, commit)
        if folder.exists():
            folder.rmdir()
        root.rename(folder)
    packages = _share_environment(folder)  # before anything is told: whoever reads may stop after the first line
    yield f"{folder}: a project with the platform of {commit[:12]}, its first commit is made"
    if dirty := platform.changed("."):
        yield f"what is in no commit of the platform is not in it: {words.listed(dirty, 3)}"
    yield packages
    yield f"its data are shared by {addresses.masked(remote) if remote else 'var/remote, a folder of it (.dvc/config)'}"
    begin = "run" if example else "add-model NAME --from FILE --label COLUMN"
    yield f"next: cd {folder}, make shell, then evergreen {begin}"


def upgrade(source: str | None = None) -> Iterator[str]:
    """Merge a newer platform into this project; gives what was done, in words.

    Args:
        source: a checkout of the platform, or the URL of one; None: where the project came from.

    Raises:
        Mistake: this is no project, its tree has changes that are in no commit, or the merge has conflicts.
        SourceUnavailable: the platform cannot be reached.
    """
    mine = Clone(settings.ROOT)
    origin = _remembered(settings.ROOT)
    # flows change data.dvc and dvc.lock whenever data arrive, and an upgrade leaves them alone
    if dirty := [path for path in mine.changed(".") if path not in ("data.dvc", "dvc.lock")]:
        raise Mistake(
            f"{words.many(len(dirty), 'file')} of this project in no commit, such as {dirty[0]}: "
            f'`git add -A && git commit -m "…"` (or `git stash`), then `evergreen upgrade` again'
        )
    with _platform(source or origin["platform"]) as platform:
        before, after = origin["commit"], platform.run("rev-parse", "HEAD")
        _refuse_strangers(platform, before, after)
        if before == after:
            yield f"nothing to do: the platform of {after[:12]} is the one this project has"
            return
        packages = bool(platform.run("diff", "--name-only", before, after, "--", "requirements.lock", "locks"))
        _pick(mine, _difference(mine, platform, before, after), after)
    yield f"the platform is now that of {after[:12]}, in its own commit; models, params.yaml and data are as they were"
    if packages:
        yield "what is locked is another: `make setup` installs it"
    yield "next: make check; `evergreen why <model>` says what the new code makes again"


# ── what a project is made of ─────────────────────────────────────────────────────────────────────


def _this_platform() -> tuple[Clone, str]:
    platform = Clone(settings.ROOT)
    if (settings.ROOT / MARKER).exists():
        raise Mistake(
            f"{settings.ROOT} is a project itself: `evergreen new` runs in a checkout of the platform, as in "
            f"{_remembered(settings.ROOT)['platform']}"
        )
    if not platform.is_checkout():
        raise Mistake(f"{settings.ROOT} is no Git checkout, so a project could not be upgraded: clone the platform")
    return platform, platform.run("rev-parse", "HEAD")


def _lay_down(platform: Clone, commit: str, root: Path, own: Path) -> None:
    """What a project has of a commit of the platform; its own files come from the template, or from `own`."""
    left_out = platform.show(commit, LEFT_OUT)
    if left_out is None:
        raise Mistake(f"the platform of {commit[:12]} has no {LEFT_OUT}: it is older than `evergreen new`")
    names = [line for line in left_out.splitlines() if line and not line.startswith("#")]
    _extract(platform, commit, root, ".", *(f":(exclude){name}" for name in names))
    if own == root:
        _extract(platform, commit, root, TEMPLATE, below=TEMPLATE)
        (root / "left-out.txt").unlink()


def _extract(platform: Clone, commit: str, root: Path, *paths: str, below: str = ".") -> None:
    """Files of a commit, in a folder."""
    with TemporaryDirectory() as folder:
        archive = Path(folder) / "files.tar"
        platform.run("archive", "-o", str(archive), commit, "--", *paths)
        with tarfile.open(archive) as opened:
            if hasattr(tarfile, "data_filter"):  # since Python 3.11.4
                opened.extraction_filter = tarfile.data_filter
            opened.extractall(folder)  # noqa: S202 - an archive of our own commit, made a moment ago
        archive.unlink()
        shutil.copytree(Path(folder) / below, root, dirs_exist_ok=True)


def _lay_example(platform: Clone, commit: str, root: Path, example: str) -> None:
    """An example's own files: params.yaml, models, and a README."""
    examples = platform.attempt("ls-tree", "-d", "--name-only", f"{commit}:examples").stdout.split()  # none: no folder
    if example not in examples:
        raise Mistake(f"there is no example {example!r}{did_you_mean(example, examples)}")
    _extract(platform, commit, root, f"examples/{example}", below=f"examples/{example}")


def _remember(root: Path, platform: Clone, commit: str) -> None:
    origin = platform.attempt("remote", "get-url", "origin").stdout.strip()
    where = _without_password(origin) if re.match(r"\w+://|[\w.-]+@", origin) else str(platform.at)
    words = "# Which platform this project has: `evergreen upgrade` merges what came since.\n"
    files.write_text(root / MARKER, f"{words}{yaml_reader.dump({'platform': where, 'commit': commit})}")


def _without_password(url: str) -> str:
    """A URL that Git may be given again: a user is named to SSH alone, which asks for one; HTTP has helpers for it."""
    return re.sub(r"^(\w+)://([^/@:]*)[^/@]*@", lambda m: f"{m[1]}://{m[2] + '@' if m[1] == 'ssh' else ''}", url)


def _remembered(root: Path) -> dict[str, str]:
    try:
        origin: dict[str, str] = yaml_reader.read(root / MARKER, MARKER, Mistake, dvc_reads=False)
    except FileNotFoundError:
        raise Mistake(
            f"{root} has no {MARKER}: it is no project made by `evergreen new`. A checkout of the platform is brought "
            f"up to date by `git pull`"
        ) from None
    if not isinstance(origin, dict) or not {"platform", "commit"} <= origin.keys():
        raise Mistake(f"{MARKER}: it must say `platform` and `commit`; `git log {MARKER}` has the former content")
    return origin


def _first_commit(root: Path, commit: str) -> None:
    clone = Clone(root)
    clone.run("init", "-q", "-b", "main")
    clone.run("add", "-A", "-f")  # whatever the person's own Git ignores everywhere
    clone.run(*clone.identity(), "commit", "-q", "-m", f"A project on the platform of {commit[:12]}")


def _share_environment(folder: Path) -> str:
    """Have the project use the platform's packages, where these are installed as its requirements.lock says."""
    theirs = (settings.ROOT / ".venv").resolve()
    ready = theirs / ".ready"
    if not ready.exists() or os.environ.get("EVERGREEN_OWN_VENV"):
        return "packages: `make setup` installs them there"
    (folder / ".venv").symlink_to(theirs)
    for lock in [folder / "requirements.lock", *folder.glob("locks/*")]:
        os.utime(lock, (ready.stat().st_mtime,) * 2)  # make: nothing is to be installed
    return f"packages: those of {theirs}; `rm .venv && make setup` gives the project its own"


# ── upgrade ───────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _platform(source: str) -> Iterator[Clone]:
    """A checkout of the platform: a folder, or a clone of a URL."""
    if Path(source).is_dir():
        yield Clone(Path(source).resolve())
        return
    with TemporaryDirectory() as folder:
        done = Clone(Path(folder)).attempt("clone", "-q", "--no-checkout", source, "platform")
        if done.returncode:
            raise SourceUnavailable(
                f"the platform cannot be had from {addresses.masked(source)}: {addresses.masked(done.stderr.strip())}. "
                f"`evergreen upgrade --from FOLDER-or-URL` names another place"
            )
        yield Clone(Path(folder) / "platform")


def _refuse_strangers(platform: Clone, before: str, after: str) -> None:
    if platform.attempt("cat-file", "-e", f"{before}^{{commit}}").returncode:
        raise Mistake(
            f"{platform.at} does not know the commit {before[:12]} that this project came from: another platform?"
        )
    if before != after and platform.is_ancestor(after, before):
        raise Mistake(
            f"{platform.at} is older ({after[:12]}) than what this project has ({before[:12]}): `git pull` there"
        )


def _difference(mine: Clone, platform: Clone, before: str, after: str) -> str:
    """A commit in the project's repository whose difference to its parent is what the platform changed."""
    parent = ""
    for commit in (before, after):
        with TemporaryDirectory() as folder:
            root = Path(folder) / "tree"
            _lay_down(platform, commit, root, settings.ROOT)
            content = yaml_reader.dump({**_remembered(settings.ROOT), "commit": commit})
            words = (settings.ROOT / MARKER).read_text().partition("\n")[0]
            files.write_text(root / MARKER, f"{words}\n{content}")
            at = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            mine.run("--work-tree", str(root), "add", "-A", "-f", ".", **at)
            tree = mine.run("write-tree", **at)
        message = f"The platform of {commit[:12]}"
        parent = mine.run(*mine.identity(), "commit-tree", tree, *(["-p", parent] if parent else []), "-m", message)
    return parent


def _pick(mine: Clone, commit: str, after: str) -> None:
    done = mine.attempt(*mine.identity(), "cherry-pick", "--allow-empty", commit)
    if done.returncode == 0:
        return
    conflicts = mine.run("diff", "--name-only", "--diff-filter=U").splitlines()
    if not conflicts:
        mine.attempt("cherry-pick", "--abort")
        raise Mistake(f"git could not merge the platform of {after[:12]}: {' '.join(done.stderr.split())}")
    locks = [path for path in conflicts if path.endswith(".lock")]
    lock = f" For {', '.join(locks)} take either side, then `make lock`." if locks else ""
    raise Mistake(
        f"the platform of {after[:12]} and this project changed the same lines of {', '.join(conflicts)}. Edit them "
        f"(git marks the places), `git add` them, then `git cherry-pick --continue`.{lock} "
        f"`git cherry-pick --abort` brings back what was"
    )
