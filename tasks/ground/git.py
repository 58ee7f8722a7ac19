"""Git by its command line: commits of single files, pushes that tell a lost race from an outage.

A flow commits data.dvc, dvc.lock or a manifest, each alone, into a clone in which people may work too. So nothing here
touches what else is changed or staged, and Git never asks for a password.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.ground import addresses
from tasks.ground.errors import SourceUnavailable

SECONDS = 120
"""How long one Git command may take."""

TRIES = 10
"""How often another worker may be first."""


@dataclass(frozen=True)
class Clone:
    """A clone or a worktree, seen from a folder in it: names of files are relative to that folder."""

    at: Path

    def run(self, *arguments: str, given: str | None = None, **environment: str) -> str:
        """The output of a Git command; `given` is its standard input.

        Raises:
            SourceUnavailable: it failed, or did not end.
        """
        done = self.attempt(*arguments, given=given, environment=environment)
        if done.returncode:
            raise SourceUnavailable(f"git {_command(arguments)} failed: {_message(done.stderr)}")
        return done.stdout.strip("\n")

    def attempt(
        self, *arguments: str, given: str | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A Git command that may fail."""
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=self.at,
                env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C", **(environment or {})},
                input=(given or "").encode("utf-8", "surrogateescape"),
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SourceUnavailable(
                f"git {_command(arguments)} did not end within {SECONDS} s: is the remote there?"
            ) from None
        # not by `text=True`, which changes line ends: what a file holds is edited and given back
        out, err = (stream.decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    # ── what is here ──────────────────────────────────────────────────────────────────────────────

    def show(self, commit: str, name: str) -> str | None:
        """A file as a commit has it; None when it has none."""
        done = self.attempt("show", f"{commit}:./{name}")
        return done.stdout if done.returncode == 0 else None

    def is_ancestor(self, commit: str, of: str) -> bool:
        """Whether a commit is the other, or comes before it."""
        return self.attempt("merge-base", "--is-ancestor", commit, of).returncode == 0

    def is_checkout(self) -> bool:
        """Whether the folder belongs to a checkout at all.

        Raises:
            SourceUnavailable: it does, but Git refuses to read it.
        """
        try:
            done = self.attempt("rev-parse", "--is-inside-work-tree")
        except FileNotFoundError:  # no Git on this machine
            return False
        if done.returncode and "not a git repository" not in done.stderr:
            raise SourceUnavailable(f"git cannot read the checkout {self.at}: {_message(done.stderr)}")
        return done.stdout.strip() == "true"

    def changed(self, *paths: str) -> list[str]:
        """Files at or below these paths that are not as HEAD has them, or are not in it; ignored files do not count."""
        has_commit = self.attempt("rev-parse", "--verify", "-q", "HEAD").returncode == 0
        against_head = ("diff", "--name-only", "--relative", "-z", "HEAD") if has_commit else ("ls-files", "-z", "-c")
        tracked = self.run(*against_head, "--", *paths)
        new = self.run("ls-files", "-z", "-o", "--exclude-standard", "--", *paths)
        return sorted({*tracked.split("\0"), *new.split("\0")} - {""})

    def trees(self, *paths: str) -> list[str]:
        """What HEAD has at these paths: mode, kind, hash and name of each; nothing where there is no commit yet."""
        done = self.attempt("ls-tree", "-z", "HEAD", "--", *paths)
        return sorted(filter(None, done.stdout.split("\0"))) if done.returncode == 0 else []

    def checked_out(self) -> str | None:
        """The branch that is checked out; None when HEAD is a commit."""
        return self.attempt("symbolic-ref", "--quiet", "--short", "HEAD").stdout.strip() or None

    # ── committing ────────────────────────────────────────────────────────────────────────────────

    def commit(self, message: str, *names: str) -> str:
        """Commit these files and nothing else, whatever else is changed or staged; gives the commit."""
        self.run("add", "--", *names)
        self.run(*self.identity(), "commit", "-q", "--only", "-m", message, "--", *names)
        return self.run("rev-parse", "HEAD")

    def identity(self) -> list[str]:
        """The committer, where Git has none configured."""
        is_set = self.attempt("config", "user.email").returncode == 0 or os.environ.get("GIT_COMMITTER_EMAIL")
        return [] if is_set else ["-c", "user.name=Evergreen", "-c", "user.email=evergreen@localhost"]

    # ── the remote ────────────────────────────────────────────────────────────────────────────────

    def push(self, remote: str, branch: str, commit: str = "HEAD") -> bool:
        """Push a commit; False when another was first.

        Raises:
            SourceUnavailable: the remote cannot be reached.
        """
        done = self.attempt("push", "-q", remote, f"{commit}:refs/heads/{branch}")
        if done.returncode == 0:
            self.attempt(*_fetching(remote, branch))
            return True
        if re.search(r"\[rejected\]|non-fast-forward|fetch first|cannot lock ref|failed to update ref", done.stderr):
            return False
        raise _unreachable("push", remote, done.stderr)

    def fetch(self, remote: str, branch: str) -> str | None:
        """The newest commit of a remote's branch; None when there is no such branch yet.

        Raises:
            SourceUnavailable: the remote cannot be reached.
        """
        done = self.attempt(*_fetching(remote, branch))
        if done.returncode and "couldn't find remote ref" in done.stderr:
            return None
        if done.returncode:
            raise _unreachable("fetch", remote, done.stderr)
        return self.run("rev-parse", f"{remote}/{branch}")


def until_first(remote: str, branch: str) -> Iterator[None]:
    """Give tries to push, with random pauses so that two workers do not meet again, until no other was first.

    Raises:
        SourceUnavailable: another was first each time.
    """
    for attempt in range(TRIES):
        yield
        time.sleep(random.uniform(0, 0.1 * 2 ** min(attempt, 5)))  # noqa: S311 - no secret
    raise SourceUnavailable(f"{remote}/{branch} moved {TRIES} times while this pushed; run again")


def _command(arguments: tuple[str, ...]) -> str:
    return next(word for word in arguments if not word.startswith("-") and "=" not in word)


def _fetching(remote: str, branch: str) -> list[str]:
    return ["fetch", "-q", remote, f"+refs/heads/{branch}:refs/remotes/{remote}/{branch}"]


def _unreachable(what: str, remote: str, stderr: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"git {what} failed: {_message(stderr)}. Check the remote {remote!r} (`git remote -v`), the network and the "
        f"credentials, then run again: nothing was lost"
    )


def _message(text: str) -> str:
    """Git's message in a line, without credentials."""
    return addresses.masked(" ".join(text.split())) or "it said nothing"
