"""The graph of dvc.yaml, reproduced in this process: the one module that knows how DVC runs stages.

DVC decides what is to be done, gives earlier results back from its run cache, and keeps the books; what `dvc repro`
would start as `python -m tasks <step> <model>` is called here as the same function. A process per stage costs more
than a second each, nearly all of it imports (docs/decisions/one-process.md).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tasks.ground import dvc_files, files, settings
from tasks.ground.errors import DataMissing, DataVersionDiffers, EvergreenError, Mistake, StageFailed
from tasks.training import stage_cache
from tasks.training.stage_reasons import edit, params_alike_in_json, reason, tell_types_apart

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage

T = TypeVar("T")

Run = Callable[[str, list[str]], None]
"""Calls a step: `run("train", ["flight_delay"])`."""


@dataclass(frozen=True)
class StageOutcome:
    """What became of one stage, and why."""

    stage: str
    how: Literal["unchanged", "restored", "ran"]
    reason: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.stage:<28} {self.how:<9} {self.reason}" + (
            f" ({self.seconds:.1f} s)" if self.seconds >= 0.05 else ""
        )


Around = Callable[[str, Callable[[], StageOutcome]], StageOutcome]
"""What a runner puts around a stage: `around("train@flight_delay", go)` must call `go()` and give its outcome."""


def reproduce(model: str, run: Run, around: Around | None = None, until: str = "package") -> list[StageOutcome]:
    """Bring everything that dvc.yaml makes for one model up to date, as far as a stage.

    Raises:
        DataVersionDiffers: data/ does not hold what data.dvc names.
        StageFailed: DVC cannot read the graph, a stage's inputs changed while it ran, or another process holds it.
        EvergreenError: what the step itself raised.
    """
    outcomes: dict[str, StageOutcome] = {}
    with _repository() as repo, _steps_in_process(run):

        def one(stage: Stage, **options: Any) -> Stage | None:
            outcome = (around or _plainly)(stage.addressing, lambda: _reproduce_stage(stage, options))
            if outcome.how != "unchanged" or stage.addressing not in outcomes:  # it may be looked at again after a wait
                outcomes[stage.addressing] = outcome
            return stage if outcome.how == "ran" else None

        dvc_files.wait_for_others(lambda: repo.reproduce(targets=[f"{until}@{model}"], repro_fn=one))
    return [outcome for stage, outcome in outcomes.items() if not stage.endswith(".dvc")]


def pending(model: str) -> dict[str, str]:
    """The stages of a model that would not be skipped now, each with the first input that differs. Runs nothing."""
    return {stage: because for stage, because in reasons(model).items() if because}


def reasons(model: str) -> dict[str, str | None]:
    """Every stage of a model in the order in which they run: the first input that differs, or None. Runs nothing."""
    if known := stage_cache.stages(model):
        return dict.fromkeys(known)
    began = time.time_ns()
    with _repository() as repo:
        found, paths = dvc_files.wait_for_others(lambda: _reasons(repo, model))
    if not any(found.values()):
        stage_cache.remember(model, list(found), paths, began)
    return found


def edited(model: str) -> str:
    """What, of all that a model is made of but its data, is not as it was last used: in words, or an empty text."""
    with _repository() as repo:
        return next(filter(None, (edit(stage) for stage in dvc_files.wait_for_others(lambda: _plan(repo, model)))), "")


def made_of(model: str) -> list[str]:
    """The files and folders that people write of what a model is made of: everything but data, and what stages make."""
    with _repository() as repo:
        stages = [stage for stage in dvc_files.wait_for_others(lambda: _plan(repo, model)) if not stage.is_data_source]
    paths = {str(dep.def_path) for stage in stages for dep in stage.deps}
    return sorted({"dvc.yaml", *(path for path in paths if Path(path).parts[0] not in ("data", "build"))})


# ── inside DVC ────────────────────────────────────────────────────────────────────────────────────


def _reasons(repo: Repo, model: str) -> tuple[dict[str, str | None], set[str]]:
    """The reasons, and every path (below the root) that was looked at to find them."""
    from dvc.repo import lock_repo

    found: dict[str, str | None] = {}
    anew: dict[str, str] = {}
    paths: set[str] = set()
    with lock_repo(repo):
        for stage in _plan(repo, model):
            because = reason(stage, anew) if stage.changed() or _follows(stage, anew) else None
            if because:
                anew |= {out.def_path: stage.addressing for out in stage.outs}
            if because or not stage.addressing.endswith(".dvc"):
                found[stage.addressing] = because
            paths |= {os.path.relpath(each.fs_path, repo.root_dir) for each in [*stage.deps, *stage.outs]}
            paths.add(os.path.relpath(stage.path, repo.root_dir))
    return found, paths


def _plan(repo: Repo, model: str) -> list[Stage]:
    """What a model is made by, in the order in which it runs."""
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    target = f"package@{model}"
    # the index has read dvc.yaml and dvc.lock: collecting by name would read them again
    wanted = [s for s in repo.index.stages if s.addressing == target] or collect_stages(repo, [target])
    return list(plan_repro(get_active_graph(repo.index.graph), wanted))


def _follows(stage: Stage, anew: dict[str, str]) -> bool:
    return any(dep.def_path in anew for dep in stage.deps)


def _reproduce_stage(stage: Stage, options: dict[str, Any]) -> StageOutcome:
    """DVC's own reproduction of one stage, told as an outcome."""
    begin = time.perf_counter()
    _refuse_without_version(stage)
    because = reason(stage, {}) if stage.changed() else None
    if because and stage.is_data_source and not stage.is_import and all(out.exists for out in stage.outs):
        # DVC would name what lies there now as the data version: also when a partition was lost, or never validated
        raise DataVersionDiffers(
            f"{stage.outs[0]} does not hold the version that {stage.addressing} names. Put it back "
            f"(dvc checkout {stage.addressing}), or let ingest make a version of what has arrived."
        )
    if because is None:
        _put_into_cache(stage)
    how: Literal["unchanged", "restored", "ran"] = "unchanged"
    if because and _redo(stage, options):
        how = "ran" if stage.addressing in _ran else "restored"
    elif because:
        because = None  # what it would have followed came out equal
    return StageOutcome(
        stage.addressing, how, because or "nothing it depends on has changed", time.perf_counter() - begin
    )


def _refuse_without_version(stage: Stage) -> None:
    """What lies in data/ while there is no data.dvc has no name, and may still change: nothing is made from it."""
    unnamed = "data" in {dep.def_path for dep in stage.deps} and not (settings.ROOT / "data.dvc").exists()
    if unnamed:
        raise DataMissing(
            "there is no data.dvc: no data version was made yet. Let partitions arrive and run ingest, or dvc add data"
        )


def _redo(stage: Stage, options: dict[str, Any]) -> bool:
    """DVC's reproduction of a stage. What came from the run cache is read again: DVC trusts a cache that rotted."""
    from dvc.repo import reproduce as dvc_reproduce

    _ran.discard(stage.addressing)
    if any(params_alike_in_json(dep) for dep in stage.deps):
        options = {**options, "force": True}  # the run cache could give back what was made with other parameters
    redone = dvc_reproduce._reproduce_stage(stage, **options)
    if not redone or stage.addressing in _ran:
        return bool(redone)
    if rotten := [hash_ for path, hash_ in _promised(stage) if not path.is_file() or files.md5(path) != hash_]:
        for hash_ in rotten:
            files.remove(Path(stage.repo.cache.local.oid_to_path(hash_)))
        for out in stage.outs:
            files.remove(Path(out.fs_path))
        dvc_reproduce._reproduce_stage(stage, **{**options, "force": True})
    return True


def _promised(stage: Stage) -> Iterator[tuple[Path, str]]:
    """Every file of a stage's outputs, and the MD5 that DVC has just recorded for it."""
    for out in stage.outs:
        if out.hash_info.isdir:
            yield from ((Path(out.fs_path, *key), hash_.value) for key, _, hash_ in out.get_obj())
        else:
            yield Path(out.fs_path), out.hash_info.value


def _put_into_cache(stage: Stage) -> None:
    """Outputs that are here as they should be, but lost from the cache, go there again: DVC would run the stage."""
    for out in stage.outs:
        if out.use_cache and not out.workspace_status() and out.changed_cache():
            out.commit(relink=False)


_ran: set[str] = set()
"""Stages whose step was called, as opposed to given back from the run cache, since their reproduction began."""


@contextmanager
def _steps_in_process(run: Run) -> Iterator[None]:
    """While this lasts, DVC calls `run` where it would start `python -m tasks …`; other commands it starts as ever."""
    from dvc.stage import run as dvc_run

    start_command = dvc_run.cmd_run

    def call_step(stage: Stage, dry: bool = False, run_env: dict[str, str] | None = None) -> None:
        words = stage.cmd.split() if isinstance(stage.cmd, str) else []
        _ran.add(stage.addressing)
        if words[:3] != ["python", "-m", "tasks"]:
            start_command(stage, dry=dry, run_env=run_env)
            return
        before = {dep.def_path: _hash(dep) for dep in stage.deps}
        run(words[3], words[4:])
        changed = [path for path, hash_ in before.items() if hash_ != _hash(_by_path(stage, path))]
        if changed:
            # DVC would now record the new inputs as what these outputs were made from
            raise StageFailed(f"{stage.addressing}: {', '.join(changed)} changed while the stage ran. Run again.")

    dvc_run.cmd_run = call_step
    try:
        yield
    finally:
        dvc_run.cmd_run = start_command


def _by_path(stage: Stage, path: str) -> Any:
    return next(dep for dep in stage.deps if dep.def_path == path)


def _hash(dep: Any) -> Any:
    """What a dependency is now: DVC's hash of its content, which for an unchanged file comes from its stat cache."""
    return dep.get_hash()


@contextmanager
def _repository() -> Iterator[Repo]:
    """The project as DVC sees it; its errors as ours."""
    from dvc.exceptions import DvcException, ReproductionError
    from dvc.repo import Repo
    from dvc.utils.serialize import _yaml

    dvc_files.mend()
    dvc_files.write_whole(_yaml)
    tell_types_apart()
    logging.getLogger("dvc").setLevel(logging.WARNING)  # what it would tell a terminal is told by outcomes
    try:
        with Repo(str(settings.ROOT), _wait_for_lock=True) as repo:
            yield repo
    except ReproductionError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, EvergreenError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from None
        raise _explained(error) from error
    except DvcException as error:
        raise _explained(error) from error


def _explained(error: BaseException) -> EvergreenError:
    """A DVC error as one of ours: with what DVC said, down to the root, and what to do."""
    said: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        if str(cause) and str(cause) not in said:
            said.append(str(cause))
        cause = cause.__cause__
    text = ": ".join(said)
    if "missing data" in text:
        return DataMissing(
            f"{text}. The files of this data version are not here: `evergreen data` brings them, or ingest makes "
            f"a version."
        )
    if "dvc.yaml" in text:
        return Mistake(f"dvc.yaml: {text}")
    return StageFailed(f"DVC: {text}")


def _plainly(_: str, go: Callable[[], StageOutcome]) -> StageOutcome:
    return go()
