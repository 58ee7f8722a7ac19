"""Reasons why a stage would run: the first of its inputs that differs from what dvc.lock says it was made from.

A file by its name, a parameter by its key with the old and the new value, a package by both versions, data by its
partitions. Stages, dependencies and outputs are DVC's objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import files, locked_packages, settings

if TYPE_CHECKING:
    from dvc.stage import Stage

NOT_RUN = "it has not run yet"

Lock = Mapping[str, Sequence[locked_packages.Pin]]


def reason(stage: Stage, anew: Mapping[str, str]) -> str | None:
    """Why a stage would run; None when nothing it depends on has changed.

    `anew` holds the outputs that earlier stages would make anew, with these stages: such an input is named last, as it
    may come out equal.
    """
    if not any(out.hash_info for out in stage.outs):
        return NOT_RUN
    if stage.changed_stage():
        return "its command changed"
    unaffected = (dep for dep in stage.deps if dep.def_path not in anew)
    if because := _first_difference(unaffected) or _of_outputs(stage):
        return because
    for dep in stage.deps:
        if dep.def_path in anew:
            return f"follows {anew[dep.def_path]}, if that changes"
    return "it asks to run always" if stage.changed_deps() else None


def edit(stage: Stage) -> str | None:
    """What a person changed of what a stage is made of: its command, code, parameters or packages.

    Not its data, nor what other stages make. None too for a stage that has never run.
    """
    if stage.is_data_source or not any(out.hash_info for out in stage.outs):
        return None
    if stage.changed_stage():
        return f"the command of {stage.addressing} changed"
    return _first_difference(dep for dep in stage.deps if Path(dep.def_path).parts[0] not in ("data", "build"))


def _first_difference(deps: Iterable[Any]) -> str | None:
    return next((_difference(dep, status) for dep in deps if (status := dep.status())), None)


def _of_outputs(stage: Stage) -> str | None:
    """An output that is as it should be and only lost from the cache is no reason: it is put there again."""
    for out in stage.outs:
        for what, how in out.workspace_status().items():
            if stage.is_data_source and how == "modified":
                return f"{_modified(out, what)}: in no data version"
            return f"its output {what} is {how}"
    return None


# ── one input ─────────────────────────────────────────────────────────────────────────────────────


def _difference(dep: Any, status: Mapping[str, Any]) -> str:
    """What differs in a dependency of DVC's."""
    what, how = next(iter(status.items()))
    if isinstance(how, Mapping):  # parameters: {params.yaml: {key: modified}}
        key = next(iter(how))
        # not read_params(flatten=False): dpath takes the key 0 of a mapping for a place in a list
        return f"{what}: {_parameter(key, dep.hash_info.value or {}, dep.read_params())}"
    if how != "modified":
        return f"{what} is {how}"
    if what in ("requirements.lock", "locks"):
        return _locked(what)
    return _modified(dep, what)


def _modified(output: Any, what: str) -> str:
    """How a file or a folder differs from what was recorded, as far as the cache still has that."""
    if not output.hash_info:
        return f"{what} was none of its inputs before"
    cached = Path(output.repo.cache.local.oid_to_path(output.hash_info.value))
    if Path(what).parent.name == "environment" and cached.is_file():
        return _environment(what, cached.read_text(encoding="utf-8"), _text(what))
    if output.hash_info.isdir and cached.is_file():
        return _listing(what, output, {entry["relpath"]: entry["md5"] for entry in files.read_json(cached)})
    return f"{what} is modified"


def _parameter(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first key at or below `key` that differs, with both values."""
    was, is_ = old.get(key, _ABSENT), new.get(key, _ABSENT)
    while isinstance(was, Mapping) and isinstance(is_, Mapping):
        below = next(name for name in [*was, *is_] if differs(was.get(name, _ABSENT), is_.get(name, _ABSENT)))
        key, was, is_ = f"{key}.{below}", was.get(below, _ABSENT), is_.get(below, _ABSENT)
    if was is _ABSENT:
        return f"{key} is new: {_value(is_)}"
    return f"{key} is gone (was {_value(was)})" if is_ is _ABSENT else f"{key} {_value(was)} → {_value(is_)}"


_ABSENT: Any = object()


def differs(old: Any, new: Any) -> bool:
    """Whether two values of params.yaml differ. True is not 1 here, as it is to Python and so to DVC; 1.0 is 1."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() != new.keys() or any(differs(value, new[key]) for key, value in old.items())
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) != len(new) or any(map(differs, old, new))
    return isinstance(old, bool) != isinstance(new, bool) or bool(old != new)


def params_alike_in_json(dep: Any) -> bool:
    """Whether parameters hold keys that JSON, and so DVC's run cache, takes for others: 0 for "0"."""
    return bool(dep.hash_name == "params") and any(map(_has_number_keys, dep.read_params().values()))


def _has_number_keys(value: Any) -> bool:
    if isinstance(value, Mapping):
        number = re.compile(r"true|false|-?\d+(\.\d+)?([eE][-+]?\d+)?")
        return any(not isinstance(key, str) or number.fullmatch(key) or _has_number_keys(value[key]) for key in value)
    return isinstance(value, list | tuple) and any(map(_has_number_keys, value))


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _environment(what: str, old: str, new: str) -> str:
    """What changed in the packages of a purpose, or in what stands above them: arithmetic, knowledge of a library."""
    was, is_ = locked_packages.read_lock(old), locked_packages.read_lock(new)
    heads = ([line.removeprefix("# ") for line in text.splitlines() if line.startswith("#")] for text in (old, new))
    differing = [(a, b) for a, b in zip_longest(*heads, fillvalue="nothing") if a != b]
    return f"{what}: {' → '.join(differing[0])}" if was == is_ and differing else _packages(what, was, is_)


def _locked(what: str) -> str:
    """What the new lock changes of the packages that steps use, as far as their last pins are here."""
    texts = [path.read_text(encoding="utf-8") for path in settings.BUILD.glob("*/environment/*.txt")]
    used = locked_packages.read_lock("".join(texts))
    changed = (path for path in locked_packages.lock_files() if what in (path.name, path.parent.name))
    lock = locked_packages.lock(*changed)
    return _packages(what, used, {name: lock[name] for name in used if name in lock})


def _packages(what: str, old: Lock, new: Lock) -> str:
    """The first package whose pins differ, and how many more do."""
    differing = sorted(name for name in {*old, *new} if set(old.get(name, ())) != set(new.get(name, ())))
    if not differing:
        return f"{what} is modified"
    was, is_ = (" | ".join(sorted({pin.version for pin in pins.get(differing[0], ())})) for pins in (old, new))
    if was and is_:
        change = f"{was} → {is_}" if was != is_ else f"{was}: on other machines than before"
    else:
        change = f"{is_} is new" if is_ else f"{was} is gone"
    return f"{what}: {differing[0]} {change}{_more(differing)}"


def _listing(what: str, output: Any, old: Mapping[str, str]) -> str:
    """Which files of a folder came, went or changed."""
    _, _, tree = output._build(  # as DVC's own get_hash does: hashes of unchanged files come from its stat cache
        output.local_cache,
        output.fs_path,
        output.fs,
        output.hash_name,
        ignore=output.dvcignore,
        dry_run=True,
        no_progress_bar=True,
    )
    new = {"/".join(key): hash_.value for key, _, hash_ in tree}
    kinds = {
        "new": sorted(new.keys() - old.keys()),
        "gone": sorted(old.keys() - new.keys()),
        "changed": sorted(name for name in new.keys() & old.keys() if new[name] != old[name]),
    }
    read = _of_datasets(kinds, output) if what == "data" else kinds
    if any(kinds.values()) and not any(read.values()):
        return f"{what}: only datasets that it does not read changed"
    parts = [f"{names[0]} is {kind}{_more(names)}" for kind, names in read.items() if names]
    return f"{what}: {', '.join(parts)}" if parts else f"{what} is modified"


def _of_datasets(kinds: dict[str, list[str]], output: Any) -> dict[str, list[str]]:
    """Of the partitions that differ those that a stage's model reads; all of them, where it is no model's."""
    _, _, model = output.stage.addressing.partition("@")
    read = [dep.read_params().get(f"models.{model}.datasets") for dep in output.stage.params]
    if (datasets := next(filter(None, read), None)) is None:
        return kinds
    return {kind: [name for name in names if name.partition("/")[0] in datasets] for kind, names in kinds.items()}


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _text(path: str) -> str:
    return (settings.ROOT / path).read_text(encoding="utf-8")
