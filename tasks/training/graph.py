"""The graph of dvc.yaml, reproduced in this process: the one module that knows how DVC runs stages.

DVC decides what is to be done, gives earlier results back from its run cache, and keeps the books; what `dvc repro`
would start as `python -m tasks <step> <model>` is called here as the same function. A process per stage costs more
than a second each, nearly all of it imports (docs/decisions/one-process.md).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tasks import settings
from tasks.errors import DataMissing, EvergreenError, Mistake, StageFailed

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage

T = TypeVar("T")

Run = Callable[[str, list[str]], None]
"""Calls a step: `run("train", ["flight_delay"])`."""

WAIT_SECONDS = 600
"""How long another process may be at work on a stage's files before this one gives up."""


@dataclass(frozen=True)
class Outcome:
    """What became of one stage, and why."""

    stage: str
    how: Literal["unchanged", "restored", "ran"]
    reason: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.stage:<28} {self.how:<9} {self.reason}" + (
            f" ({self.seconds:.1f} s)" if self.seconds >= 0.05 else ""
        )


Around = Callable[[str, Callable[[], Outcome]], Outcome]
"""What a runner puts around a stage: `around("train@flight_delay", go)` must call `go()` and give its outcome."""


def reproduce(model: str, run: Run, around: Around | None = None) -> list[Outcome]:
    """Bring everything that dvc.yaml makes for one model up to date.

    Raises:
        StageFailed: DVC cannot read the graph, a stage's inputs changed while it ran, or another process holds it.
        EvergreenError: what the step itself raised.
    """
    outcomes: dict[str, Outcome] = {}
    with _repository() as repo, _steps_in_process(run):

        def one(stage: Stage, **options: Any) -> Stage | None:
            outcome = (around or _plainly)(stage.addressing, lambda: _reproduce_stage(stage, options))
            if outcome.how != "unchanged" or stage.addressing not in outcomes:  # it may be looked at again after a wait
                outcomes[stage.addressing] = outcome
            return stage if outcome.how == "ran" else None

        _with_patience(lambda: repo.reproduce(targets=[f"package@{model}"], repro_fn=one))
    return [outcome for stage, outcome in outcomes.items() if not stage.endswith(".dvc")]


def pending(model: str) -> dict[str, str]:
    """The stages of a model that would not be skipped now, each with the first input that differs. Runs nothing."""
    with _repository() as repo:
        return _with_patience(lambda: _pending(repo, model))


# ── inside DVC ────────────────────────────────────────────────────────────────────────────────────


def _pending(repo: Repo, model: str) -> dict[str, str]:
    from dvc.repo import lock_repo
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    with lock_repo(repo):
        graph = get_active_graph(repo.index.graph)
        plan = plan_repro(graph, collect_stages(repo, [f"package@{model}"]))
        return {stage.addressing: _reason(stage) for stage in plan if stage.changed()}


def _reproduce_stage(stage: Stage, options: dict[str, Any]) -> Outcome:
    """DVC's own reproduction of one stage, told as an outcome."""
    from dvc.repo import reproduce as dvc_reproduce

    begin = time.perf_counter()
    reason = _reason(stage) if stage.changed() else "nothing it depends on has changed"
    _ran.discard(stage.addressing)
    redone = dvc_reproduce._reproduce_stage(stage, **options)
    if not redone:
        how: Literal["unchanged", "restored", "ran"] = "unchanged"
    else:
        how = "ran" if stage.addressing in _ran else "restored"
    return Outcome(stage.addressing, how, reason, time.perf_counter() - begin)


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
            f"{text}. The files of this data version are not here: `make data` brings them, or ingest makes a version."
        )
    if "dvc.yaml" in text:
        return Mistake(f"dvc.yaml: {text}")
    return StageFailed(f"DVC: {text}")


def _with_patience(act: Callable[[], T]) -> T:
    """Do it; when another process is at work on the same files, wait for it rather than fail as DVC does."""
    from dvc.exceptions import ReproductionError
    from dvc.lock import LockError

    give_up = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return act()
        except (LockError, ReproductionError) as error:
            busy = isinstance(error, LockError) or isinstance(error.__cause__, LockError)
            if not busy or time.monotonic() > give_up:
                raise
            time.sleep(0.5)


def _plainly(_: str, go: Callable[[], Outcome]) -> Outcome:
    return go()


def _reason(stage: Stage) -> str:
    """The first thing that differs from what dvc.lock says."""
    if not any(out.hash_info for out in stage.outs):
        return "it has not run yet"
    if stage.changed_stage():
        return "its command changed"
    for dep in stage.deps:
        for what, how in dep.status().items():
            if isinstance(how, dict):  # parameters: {params.yaml: {key: modified}}
                key, change = next(iter(how.items()))
                return f"{what}: {key} is {change}"
            return f"{what} is {how}"
    for out in stage.outs:
        for what, how in out.status().items():
            return f"its output {what} is {how}"
    return "it asks to run always"
