"""Uncommitted files that a model is made of or judged by: no other clone has them, and the next edit loses them.

A folder that is no checkout of Git has no commits to compare with: nothing is uncommitted there.
"""

from __future__ import annotations

from collections.abc import Iterable

from tasks.ground import files, settings, yaml_reader
from tasks.ground.errors import ParamsError
from tasks.ground.git import Clone
from tasks.ground.words import listed

CODE = ("dvc.yaml", "locks", "models", "params.yaml", "requirements.lock", "tasks")
"""All that candidates are made by."""

PARAMS = "params.yaml"

LATER = ("retrain", "rollout")
"""Sections of a model that neither its candidate nor its verdict depends on."""


def of(model: str, paths: Iterable[str]) -> list[str]:
    """New, changed and removed files among these paths, sorted.

    Args:
        model: of params.yaml only its section counts, without `retrain` and `rollout`.
        paths: files and folders that it is made of, relative to the project; params.yaml is always included.

    Raises:
        SourceUnavailable: there is a checkout, but Git cannot read it.
    """
    clone = Clone(settings.ROOT)
    if not clone.is_checkout():
        return []
    changed = clone.changed(*sorted({*paths, PARAMS}))
    return [path for path in changed if path != PARAMS or _section_differs(clone, model)]


def code() -> str:
    """The identity of the code as it is committed; without a checkout, as its files are."""
    clone = Clone(settings.ROOT)
    if clone.is_checkout() and (trees := clone.trees(*CODE)):
        return files.digest(trees)[:16]
    paths = [settings.ROOT / name for name in CODE]
    return files.digest([files.tree(p) if p.is_dir() else files.sha256(p) for p in paths if p.exists()])[:16]


def in_words(changed: list[str]) -> str:
    """For verdict, journal and page: «uncommitted: params.yaml»."""
    return f"uncommitted: {listed(changed, 3)}"


def _section_differs(clone: Clone, model: str) -> bool:
    committed = clone.show("HEAD", PARAMS)
    now = (settings.ROOT / PARAMS).read_text(encoding="utf-8")
    return committed is None or _section(committed, model) != _section(now, model)


def _section(text: str, model: str) -> str:
    """By digest, for which 1 and true are two values."""
    try:
        section = yaml_reader.parse(text, PARAMS, ParamsError, dvc_reads=True)["models"][model]
        return files.digest({name: value for name, value in section.items() if name not in LATER})
    except (ParamsError, LookupError, TypeError, AttributeError):  # not there, or no YAML
        return text
