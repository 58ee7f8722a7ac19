"""Reproduction of dvc.yaml's graph in this process: the one module that knows how DVC runs stages.

DVC decides what is to be done, gives earlier results back from its run cache, and writes dvc.lock; what `dvc repro`
would start as `python -m tasks <step> <model>` is called here as the same function (dvc_patches.py). A process per
stage costs more than a second each, nearly all of it imports (docs/decisions/one-process.md).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.ground import dvc_files, files, settings
from tasks.ground.errors import DataMissing, DataVersionDiffers, EvergreenError, Mistake, StageFailed
from tasks.training import dvc_patches, stage_cache
from tasks.training.stage_reasons import edit, params_alike_in_json, reason

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage


@dataclass(frozen=True)
class StageOutcome:
    """What became of one stage, and why."""

    stage: str
    how: Literal["unchanged", "restored", "ran"]
    reason: str
    seconds: float

    def __str__(self) -> str:
        seconds = f" ({self.seconds:.1f} s)" if self.seconds >= 0.05 else ""
        return f"{self.stage:<28} {self.how:<9} {self.reason}{seconds}"


Run = Callable[[str, list[str]], None]
"""Calls a step: `run("train", ["flight_delay"])`."""

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
    with _repository() as repo, dvc_patches.steps_in_process(run) as called:

        def reproduce_stage(stage: Stage, **options: Any) -> Stage | None:
            go = partial(_reproduce_stage, stage, options, called)
            outcome = around(stage.addressing, go) if around else go()
            if outcome.how != "unchanged" or stage.addressing not in outcomes:  # after a wait it is checked again
                outcomes[stage.addressing] = outcome
            return stage if outcome.how == "ran" else None

        dvc_files.wait_for_others(lambda: repo.reproduce(targets=[f"{until}@{model}"], repro_fn=reproduce_stage))
    return [outcome for stage, outcome in outcomes.items() if not stage.endswith(".dvc")]


def pending(model: str) -> dict[str, str]:
    """The stages of a model that would not be skipped now, each with the first input that differs. Runs nothing."""
    return {stage: because for stage, because in reasons(model).items() if because}


def reasons(model: str) -> dict[str, str | None]:
    """Every stage of a model in the order in which they run: the first input that differs, or None. Runs nothing."""
    if up_to_date := stage_cache.stages(model):
        return dict.fromkeys(up_to_date)
    began = time.time_ns()
    with _repository() as repo:
        because, looked_at = dvc_files.wait_for_others(lambda: _reasons(repo, model))
    if not any(because.values()):
        stage_cache.remember(model, list(because), looked_at, began)
    return because


def edited(model: str) -> str:
    """The first thing, of all that a model is made of but its data, that was edited since it was used; or empty."""
    with _repository() as repo:
        return next(filter(None, map(edit, dvc_files.wait_for_others(lambda: _plan(repo, model)))), "")


def made_of(model: str) -> list[str]:
    """The files and folders that people write of what a model is made of: everything but data, and what stages make."""
    with _repository() as repo:
        stages = [stage for stage in dvc_files.wait_for_others(lambda: _plan(repo, model)) if not stage.is_data_source]
    paths = {str(dep.def_path) for stage in stages for dep in stage.deps}
    return sorted({"dvc.yaml", *(path for path in paths if Path(path).parts[0] not in ("data", "build"))})


# ── inside DVC ────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _repository() -> Iterator[Repo]:
    """The project as DVC sees it; its errors as ours."""
    from dvc.exceptions import DvcException, ReproductionError
    from dvc.repo import Repo

    dvc_files.repair()
    dvc_patches.apply()
    logging.getLogger("dvc").setLevel(logging.WARNING)  # outcomes say what it would tell a terminal
    try:
        with Repo(str(settings.ROOT), _wait_for_lock=True) as repo:
            yield repo
    except DvcException as error:
        causes: list[BaseException] = [error]
        while (cause := causes[-1].__cause__) is not None:
            causes.append(cause)
        ours = next((cause for cause in causes if isinstance(cause, EvergreenError)), None)
        if ours is not None and isinstance(error, ReproductionError):
            raise ours from None
        raise _explained(": ".join(dict.fromkeys(filter(None, map(str, causes))))) from error


def _explained(text: str) -> EvergreenError:
    """An error of DVC's as one of ours, with what to do."""
    if "missing data" in text:
        return DataMissing(
            f"{text}. The files of this data version are not here: `evergreen data` brings them, or ingest makes "
            f"a version."
        )
    return Mistake(f"dvc.yaml: {text}") if "dvc.yaml" in text else StageFailed(f"DVC: {text}")


def _plan(repo: Repo, model: str) -> list[Stage]:
    """The stages that a model is made by, in the order in which they run."""
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    target = f"package@{model}"
    # the index has read dvc.yaml and dvc.lock: collecting by name would read them again
    targets = [s for s in repo.index.stages if s.addressing == target] or collect_stages(repo, [target])
    return list(plan_repro(get_active_graph(repo.index.graph), targets))


def _reasons(repo: Repo, model: str) -> tuple[dict[str, str | None], set[str]]:
    """The reasons, and every path (below the root) that was looked at for them."""
    from dvc.repo import lock_repo

    reasons: dict[str, str | None] = {}
    anew: dict[str, str] = {}
    looked_at: set[str] = set()
    with lock_repo(repo):
        for stage in _plan(repo, model):
            follows = any(dep.def_path in anew for dep in stage.deps)
            because = reason(stage, anew) if stage.changed() or follows else None
            if because:
                anew |= {out.def_path: stage.addressing for out in stage.outs}
            if because or not stage.addressing.endswith(".dvc"):
                reasons[stage.addressing] = because
            used = [stage.path, *(each.fs_path for each in [*stage.deps, *stage.outs])]
            looked_at |= {os.path.relpath(path, repo.root_dir) for path in used}
    return reasons, looked_at


# ── one stage ─────────────────────────────────────────────────────────────────────────────────────


def _reproduce_stage(stage: Stage, options: dict[str, Any], called: set[str]) -> StageOutcome:
    """DVC's own reproduction of one stage; `called` holds the stages whose command was called (steps_in_process)."""
    begin = time.perf_counter()
    if "data" in {dep.def_path for dep in stage.deps} and not (settings.ROOT / "data.dvc").exists():
        raise DataMissing(
            "there is no data.dvc: no data version was made yet. Let partitions arrive and run ingest, or dvc add data"
        )
    because = reason(stage, {}) if stage.changed() else None
    if because and stage.is_data_source and not stage.is_import and all(out.exists for out in stage.outs):
        # DVC would name what lies there now as the data version: also when a partition was lost, or never validated
        raise DataVersionDiffers(
            f"{stage.outs[0]} does not hold the version that {stage.addressing} names. While an ingest is at work that "
            f"is so: it ends with a version, and the training that it triggers finds it. Else put it back "
            f"(dvc checkout {stage.addressing}), or let ingest make a version of what has arrived."
        )
    how: Literal["unchanged", "restored", "ran"] = "unchanged"
    if because is None:
        for out in stage.outs:  # what is here and only lost from the cache goes there again: DVC would run the stage
            if out.use_cache and not out.workspace_status() and out.changed_cache():
                out.commit(relink=False)
    elif _redo(stage, options, called):
        how = "ran" if stage.addressing in called else "restored"
    if how == "unchanged":  # also where what it would have followed came out equal
        because = "nothing it depends on has changed"
    return StageOutcome(stage.addressing, how, str(because), time.perf_counter() - begin)


def _redo(stage: Stage, options: dict[str, Any], called: set[str]) -> bool:
    """DVC's reproduction of a stage. What came from the run cache is read again: DVC trusts a cache that rotted."""
    from dvc.repo import reproduce as dvc_reproduce

    called.discard(stage.addressing)
    if any(params_alike_in_json(dep) for dep in stage.deps):
        options = {**options, "force": True}  # the run cache could give back what was made with other parameters
    redone = dvc_reproduce._reproduce_stage(stage, **options)
    if not redone or stage.addressing in called:
        return bool(redone)
    if rotten := [md5 for path, md5 in _recorded(stage) if not path.is_file() or files.md5(path) != md5]:
        for md5 in rotten:
            files.remove(Path(stage.repo.cache.local.oid_to_path(md5)))
        for out in stage.outs:
            files.remove(Path(out.fs_path))
        dvc_reproduce._reproduce_stage(stage, **{**options, "force": True})
    return True


def _recorded(stage: Stage) -> Iterator[tuple[Path, str]]:
    """Every file of a stage's outputs, and the MD5 that DVC has just recorded for it."""
    for out in stage.outs:
        if out.hash_info.isdir:
            yield from ((Path(out.fs_path, *key), hash_.value) for key, _, hash_ in out.get_obj())
        else:
            yield Path(out.fs_path), out.hash_info.value
