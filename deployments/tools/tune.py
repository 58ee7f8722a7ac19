"""`evergreen tune`: a study at a terminal, with a bar that says how far it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tasks.ground import params, paths, settings
from tasks.lifecycle import tune, tune_report
from tasks.lifecycle.tune import TuneRequest
from tasks.lifecycle.tune_result import TuneResult
from tasks.training.tuning import study

__all__ = ["TuneRequest", "run"]


def run(name: str, config: params.Params, request: TuneRequest, *, apply: bool) -> tuple[dict[str, Any], list[str]]:
    """Run a study, and apply its proposal if that is wanted; gives it for a program, and in lines."""
    with _progress() as tell:
        result = tune.run(name, config, request, tell, log=lambda line: print(line, file=sys.stderr, flush=True))
    return result.as_json(), [*_lines(result), *([tune.apply(result)] if apply else _how_to_apply(result))]


@contextmanager
def _progress() -> Iterator[study.Tell]:
    """A bar at a terminal; elsewhere a line per trial. Both on stderr."""
    if not sys.stderr.isatty():
        yield _LinePerTrial()
        return
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("tuning", total=None, text="the present parameters come first")

        def tell(progress: study.StudyProgress) -> None:
            bar.update(task, completed=progress.trials, total=progress.of, text=str(progress))

        yield tell


class _LinePerTrial:
    """Prints how far a study is when a further trial has ended."""

    def __init__(self) -> None:
        self.trials = 0

    def __call__(self, progress: study.StudyProgress) -> None:
        if progress.trials > self.trials:
            self.trials = progress.trials
            print(progress, file=sys.stderr, flush=True)


def _lines(result: TuneResult) -> list[str]:
    width = Console().width if sys.stdout.isatty() else 160
    console = Console(file=StringIO(), width=width, force_terminal=sys.stdout.isatty(), highlight=False)
    console.print(tune_report.table(result))
    assert isinstance(console.file, StringIO)
    page = (paths.tunings(result.name) / "report.html").relative_to(settings.ROOT)
    return [
        console.file.getvalue().rstrip("\n"),
        *tune_report.verdict(result),
        *result.patch.splitlines(),
        f"page: {page}",
    ]


def _how_to_apply(result: TuneResult) -> list[str]:
    if not result.patch:
        return []
    path = (paths.tunings(result.name) / "proposal.patch").relative_to(settings.ROOT)
    return [f"to take it over: git apply {path}; evergreen train {result.name}"]
