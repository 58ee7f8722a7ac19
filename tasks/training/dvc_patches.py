"""Patches of DVC, for this process: what DVC has no option for, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.ground import dvc_files, files
from tasks.ground.errors import StageFailed
from tasks.training.stage_reasons import differs

if TYPE_CHECKING:
    from dvc.stage import Stage


def apply() -> None:
    """The patches that last: files written whole and parsed once, dvc.lock by the stage, types of parameters."""
    from dvc import dvcfile
    from dvc.dependency.param import ParamsDependency
    from dvc.utils.serialize import _common, _yaml

    dvc_files.write_whole(_yaml)
    dvc_files.write_whole(_common)
    _replace(_yaml, "parse_yaml", partial(_parses_once, _yaml))
    _replace(dvcfile, "modify_yaml", _modifies_by_stage)
    _replace(ParamsDependency, "workspace_status", _tells_types_apart)


def _replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put in place of a function of DVC's what `make` makes of it; once in a process."""
    original = getattr(owner, name)
    if not getattr(original, "is_patch", False):
        patch = make(original)
        patch.is_patch = True
        setattr(owner, name, patch)


def _parses_once(yaml: Any, parse_any: Any) -> Any:
    """DVC keeps what a text of YAML holds: it parses params.yaml, 15 ms, three times for each stage.

    dvc.lock, which it reads again after each stage, is parsed by the stage: one of them has changed.
    """
    parsed = lru_cache(maxsize=8)(lambda text: parse_any(text, ""))
    parsed_part = lru_cache(maxsize=256)(lambda text: parse_any(text, ""))

    def parse_lock(text: str) -> Any:
        head, parts = _by_stage(text)
        if _ANCHOR.search(text) or re.search(r"^[^ \n]", "".join(parts), re.MULTILINE):
            return parsed(text)
        try:
            stages = {name: entry for part in parts for name, entry in parsed_part(part).items()}
            return {**parsed_part(head), "stages": stages} if parts and len(stages) == len(parts) else parsed(text)
        except (yaml.YAMLFileCorruptedError, TypeError):
            return parsed(text)

    def parse_yaml(text: Any, path: Any, typ: str = "safe") -> Any:
        try:
            if typ != "safe":
                return parse_any(text, path, typ)
            return deepcopy(parse_lock(text) if Path(path).name == "dvc.lock" else parsed(text))
        except yaml.YAMLFileCorruptedError as error:
            raise yaml.YAMLFileCorruptedError(path) from error.__cause__

    return parse_yaml


_ANCHOR = re.compile(r"[:-] &\w")


def _by_stage(text: str) -> tuple[str, list[str]]:
    """The head of a dvc.lock as DVC writes it, and the text of each stage."""
    head, *parts = re.split(r"^(?=  \S)", text, flags=re.MULTILINE)
    return head, parts


def _modifies_by_stage(modify_all: Any) -> Any:
    """Only changed stages of dvc.lock are written: to keep comments, DVC takes half a second a stage for all of it."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml

    @contextmanager
    def modify_yaml(path: str, fs: Any = None) -> Iterator[Any]:
        lock = Path(path).absolute()
        text = lock.read_text(encoding="utf-8") if lock.name == "dvc.lock" and lock.exists() else ""
        head, parts = _by_stage(text)
        texts = {part.partition(":")[0].strip(): part for part in parts}
        data = parse_yaml(text, path) if texts else {}
        if data.keys() != {"schema", "stages"} or list(texts) != list(data["stages"]):  # not as DVC writes it
            with modify_all(path, fs=fs) as data:
                yield data
            return
        before = deepcopy(data["stages"])
        yield data
        for name, entry in data["stages"].items():
            if name not in before or differs(before[name], entry):
                texts[name] = dumps_yaml({"stages": {name: entry}}).partition("\n")[2]
        written = head + "".join(texts.values())
        if _ANCHOR.search(written):  # an anchor's name may stand once in a file, and each stage counts from one
            written = dumps_yaml(data)
        files.write_text(lock, written)

    return modify_yaml


def _tells_types_apart(status: Any) -> Any:
    """A parameter changed that is 0 and was false: to scikit-learn that is another value, to DVC it is not."""

    def workspace_status(dep: Any) -> Any:
        changes = status(dep)
        recorded = dep.hash_info.value if dep.hash_info else None
        if not changes and isinstance(recorded, dict):
            now = dep.read_params()
            if retyped := {key: "modified" for key in dep.params if differs(recorded.get(key), now.get(key))}:
                changes[str(dep)] = retyped
        return changes

    return workspace_status


@contextmanager
def steps_in_process(run: Callable[[str, list[str]], None]) -> Iterator[set[str]]:
    """While this lasts, DVC calls `run` where it would start `python -m tasks …`: a process costs a second of imports.

    Other commands are started as ever. Gives the set of stages whose command was called; those that DVC gives back from
    its run cache are not in it.
    """
    from dvc.stage import run as dvc_run

    called: set[str] = set()
    start_command = dvc_run.cmd_run

    def call_step(stage: Stage, dry: bool = False, run_env: dict[str, str] | None = None) -> None:
        called.add(stage.addressing)
        words = stage.cmd.split() if isinstance(stage.cmd, str) else []
        if words[:3] != ["python", "-m", "tasks"]:
            start_command(stage, dry=dry, run_env=run_env)
            return
        # DVC's hash of an unchanged file comes from its stat cache
        before = {dep.def_path: dep.get_hash() for dep in stage.deps}
        run(words[3], words[4:])
        changed = [dep.def_path for dep in stage.deps if before[dep.def_path] != dep.get_hash()]
        if changed:  # DVC would now record the new inputs as what these outputs were made from
            raise StageFailed(f"{stage.addressing}: {', '.join(changed)} changed while the stage ran. Run again.")

    dvc_run.cmd_run = call_step
    try:
        yield called
    finally:
        dvc_run.cmd_run = start_command
