"""Kubernetes manifests in Git: written once for a model; a rollout commits the tag of a release into them.

Nothing here talks to a cluster: Argo CD, Flux or `kubectl apply` bring it to what the branch says. So the commit is the
rollout, its history is the history of what was live, and `git revert` is a way back too (docs/how-to/kubernetes.md).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml

from tasks.ground import files
from tasks.ground.errors import Mistake
from tasks.ground.git import Clone, until_first
from tasks.release.cluster import image

MODEL, CANDIDATE, VERSION = "evergreen/model", "evergreen/candidate", "evergreen/version"
"""Labels of the Deployment and of its pods."""

CONTAINERS = {"Deployment": "release", "ClusterServingRuntime": "kserve-container"}
"""Kind of what says which image runs → its container."""

Log = Callable[[str], object]


def write(model: str, candidate: str, version: int, images: str, folder: Path, *, kserve: bool = False) -> Path:
    """Write the manifests of a model, for a person to read, edit and commit; gives the file, `<model>.yaml`.

    `images` is the registry and the path in it where its images are, such as `registry.example/evergreen`. For KServe
    they are a runtime of its own and an InferenceService, instead of a Deployment and what belongs to it.
    """
    path = folder / f"{model}.yaml"
    if path.exists():
        raise Mistake(
            f"{path} is there, and may hold what somebody wrote: it is not replaced. A rollout changes its tag; "
            f"remove it first to begin anew"
        )
    name = "kserve.yaml" if kserve else "model.yaml"
    template = Template((image.TEMPLATES / name).read_text(encoding="utf-8"))
    names = {"model": model, "name": image.name_of(model), "candidate": candidate, "version": str(version)}
    files.write_text(path, template.substitute(names, image=image.reference(images, model, candidate)))
    return path


def roll(
    model: str,
    candidate: str,
    version: int,
    folder: Path,
    *,
    branch: str | None = None,
    remote: str | None = None,
    about: str = "",
    log: Log = print,
) -> str | None:
    """Commit the release's tag into `<folder>/<model>.yaml`, that file alone; gives the commit, None if it is there.

    With a remote, the commit is made on top of what the remote's branch has now, and pushed; what is checked out in the
    folder, and changed there, is not touched. When somebody else was first it is made anew on top of theirs. Killed
    anywhere, nothing was done or everything was. Without a remote it is committed in the clone. Without a branch it is
    the one that is checked out. `about` is why, for the commit's message.

    Raises:
        Mistake: there is no such manifest in Git, it has no place for the tag, or (without a remote) somebody is
            editing it.
        SourceUnavailable: Git or the remote cannot be reached.
    """
    clone = Clone(folder)
    if not folder.is_dir() or clone.attempt("rev-parse", "--is-inside-work-tree").returncode:
        raise Mistake(f"{folder} is no folder in a Git clone: manifests are rolled out by a commit. Clone it there")
    manifest = _Manifest(clone, f"{model}.yaml", model, candidate, str(version), about)
    with files.lock("git"):
        commit = manifest.push(remote, branch, log) if remote else manifest.commit(branch)
    where = f"{remote}/{branch or clone.checked_out()}" if remote else str(folder)
    log(f"{where}: {model} is at {candidate}" + (f", commit {commit[:12]}" if commit else " already"))
    return commit


# ── the change ────────────────────────────────────────────────────────────────────────────────────


def changed(text: str, model: str, candidate: str, version: str) -> str:
    """A manifest with this release in it: other bytes only where a value differs, so that a person's edits stay."""
    places = sorted(_places(text, model, candidate, version), key=lambda place: place[0].start_mark.index, reverse=True)
    for node, value in places:
        if node.value != value:
            text = text[: node.start_mark.index] + _scalar(node, value) + text[node.end_mark.index :]
    return text


def candidate_in(text: str, model: str) -> str:
    """The candidate whose image a manifest names."""
    return _split(_image(_deployment(text, model), model).value)[1]


def _places(text: str, model: str, candidate: str, version: str) -> Iterator[tuple[yaml.ScalarNode, str]]:
    """The values that a rollout sets, and to what."""
    deployment = _deployment(text, model)
    pods = _at(deployment, "spec", "template", "metadata", "labels") or _at(deployment, "spec", "labels")
    for labels in (_at(deployment, "metadata", "labels"), pods):
        for label, value in ((CANDIDATE, candidate), (VERSION, version)):
            if isinstance(node := _at(labels, label), yaml.ScalarNode):  # a label that a person took away stays away
                yield node, value
    node = _image(deployment, model)
    yield node, f"{_split(node.value)[0]}:{candidate}"


def _deployment(text: str, model: str) -> yaml.Node:
    """What says which image runs: a Deployment, or a ClusterServingRuntime."""
    try:
        documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise Mistake(f"{model}.yaml is not YAML: {error}") from None
    for document in documents:
        kind, label = _at(document, "kind"), _at(document, "metadata", "labels", MODEL)
        if kind is not None and kind.value in CONTAINERS and label is not None and label.value == model:
            return document
    raise Mistake(
        f"{model}.yaml holds no {' or '.join(CONTAINERS)} with the label {MODEL}: {model}, so nothing says where the "
        f"tag belongs. `evergreen manifests {model}` writes one"
    )


def _image(deployment: yaml.Node, model: str) -> yaml.ScalarNode:
    kind = _at(deployment, "kind").value  # type: ignore[union-attr]  # by which it was chosen
    containers = _at(deployment, "spec", "template", "spec", "containers") or _at(deployment, "spec", "containers")
    for container in containers.value if isinstance(containers, yaml.SequenceNode) else []:
        name, node = _at(container, "name"), _at(container, "image")
        if name is not None and name.value == CONTAINERS[kind] and isinstance(node, yaml.ScalarNode):
            return node
    raise Mistake(f"{model}.yaml: the {kind} has no container {CONTAINERS[kind]!r} with an image")


def _at(node: yaml.Node | None, *keys: str) -> yaml.Node | None:
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for name, value in pairs if name.value == key), None)
    return node


def _split(reference: str) -> tuple[str, str]:
    """An image's name and its tag. A digest goes: it would win over the tag."""
    path, slash, last = reference.partition("@")[0].rpartition("/")
    name, _, tag = last.partition(":")
    return f"{path}{slash}{name}", tag


def _scalar(node: yaml.ScalarNode, value: str) -> str:
    """A text as YAML, quoted where it was, or where it would be read as a number: a candidate may be all digits."""
    if node.style == "'":
        return f"'{value}'"
    return value if node.style is None and yaml.safe_load(value) == value else f'"{value}"'


# ── the commit ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Manifest:
    """A manifest in a clone, and the release it is to name."""

    clone: Clone
    name: str
    model: str
    candidate: str
    version: str
    about: str

    def push(self, remote: str, branch: str | None, log: Log) -> str | None:
        """Commit on top of the remote's branch until nobody else was first; None: it names the release already."""
        branch = branch or self.clone.checked_out()
        if branch is None:
            raise Mistake(f"no branch is checked out in {self.clone.at}: name the branch to push to")
        for _ in until_first(remote, branch):
            tip = self.clone.fetch(remote, branch)
            if tip is None:
                raise Mistake(f"{remote} has no branch {branch!r}: push one that has {self.name}, or name another")
            before, after = self._change(tip, f"{remote}/{branch}")
            if after == before:
                return None
            commit = self._commit_on(tip, before, after)
            if self.clone.push(remote, branch, commit):
                if self.clone.checked_out() == branch and self.clone.run("rev-parse", "HEAD") == tip:
                    self.clone.attempt("merge", "-q", "--ff-only", commit)  # a person's edits stay
                return commit
            log(f"{remote}/{branch} has moved: once more, on top of what is there")
        raise AssertionError("until_first raises after the last try")

    def commit(self, branch: str | None) -> str | None:
        """Commit to the branch that is checked out; None: it names the release already."""
        here = self.clone.checked_out()
        if here is None or (branch and branch != here):
            raise Mistake(
                f"{f'{here!r} is' if here else 'no branch is'} checked out in {self.clone.at}"
                f"{f', not {branch!r}' if branch else ''}: check out the branch to commit to, or name a remote"
            )
        before, after = self._change("HEAD", here)
        if after == before:
            return None
        path = self.clone.at / self.name
        current = path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else None
        if current not in (before, after):  # what a killed rollout wrote is ours
            raise Mistake(f"{path} was edited and not committed: commit the edit or undo it, then run again")
        with files.replacing(path) as beside:
            beside.write_bytes(after.encode("utf-8", "surrogateescape"))
        return self.clone.commit(self._message(before), self.name)

    def _change(self, commit: str, shown: str) -> tuple[str, str]:
        before = self.clone.show(commit, self.name)
        if before is None:
            raise Mistake(
                f"{shown} has no {self.name} in {self.clone.at}. `evergreen manifests {self.model}` writes it; "
                f"read it, commit it, then run again"
            )
        return before, changed(before, self.model, self.candidate, self.version)

    def _message(self, before: str) -> str:
        subject = f"{self.model}: version {self.version} rolls out (candidate {self.candidate})"
        about = f"{self.about.strip()}\n\n" if self.about.strip() else ""
        return f"{subject}\n\n{about}before: {candidate_in(before, self.model)}"

    def _commit_on(self, tip: str, before: str, after: str) -> str:
        """A commit with the changed file on top of another; made without looking at what is checked out."""
        path = self.clone.run("rev-parse", "--show-prefix") + self.name
        mode = self.clone.run("ls-tree", tip, "--", self.name).partition(" ")[0]
        blob = self.clone.run("hash-object", "-w", "--path", self.name, "--stdin", given=after)
        with tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            self.clone.run("read-tree", tip, **index)
            self.clone.run("update-index", "--cacheinfo", f"{mode},{blob},{path}", **index)
            tree = self.clone.run("write-tree", **index)
        return self.clone.run(*self.clone.identity(), "commit-tree", tree, "-p", tip, given=self._message(before))
