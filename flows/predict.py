"""predict: a file, a partition or a bucket's prefix is scored to Parquet, as the release that is named would answer."""

from __future__ import annotations

import time
from typing import Annotated, Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.prefect_support.as_task import as_task
from tasks.release.batch import batch

EVERY_S = 3.0
"""Seconds between two looks at how far it is: each is a call to the server."""


@flow(name="predict", flow_run_name="predict/{model}", description=__doc__)
def predict(
    model: str,
    source: Annotated[str, Field(min_length=1)],
    to: str | None = None,
    version: Annotated[str, Field(min_length=1)] = batch.CHAMPION,
    chunk: Annotated[int, Field(ge=1, le=1_000_000)] = batch.CHUNK,
    keep: list[str] | None = None,
) -> State[Any]:
    """Score what a source names. A run that was killed is continued by the next one with the same parameters.

    Args:
        model: a name below `models` in params.yaml.
        source: a file of rows (.csv, .parquet, .jsonl) or a folder of such, by path or URL (s3://…); or a partition of
            raw tables, as `flights/2013-10`, or its file in data/ or in the landing zone.
        to: the folder or URL the Parquet files go to; empty: below var/batch/<model>.
        version: champion, challenger or former; the number of a version; or a candidate.
        chunk: rows that are scored at once, and in one Parquet file.
        keep: columns of the source, beside id, time and label, that go along to the answers.
    """
    watch = _Watch(f"predict-{model.replace('_', '-')}")
    scored = as_task(batch.score, f"score {source}")(
        model, source, to or None, version, chunk, keep or [], tell=get_run_logger().info, progress=watch
    )
    _show(model, scored)
    scored.check()
    return Completed(message=str(scored))


class _Watch:
    """Shows how far a batch is: as a progress bar in the UI, and as a line now and then."""

    def __init__(self, key: str) -> None:
        made = create_progress_artifact(0.0, key=key, description="nothing scored yet")
        assert isinstance(made, UUID)  # it is a coroutine only where there is a loop
        self.artifact = made
        self.tell = get_run_logger().info
        self.told = time.monotonic()

    def __call__(self, share: float, scored: batch.Scored) -> None:
        now = time.monotonic()
        if share >= 1 or now - self.told >= EVERY_S:
            self.told = now
            said = f"{share:.0%}: {scored.rows:,} rows, {scored.refused:,} of them refused"
            update_progress_artifact(self.artifact, share * 100, description=said)
            self.tell(said)


def _show(model: str, scored: batch.Scored) -> None:
    """What it came to, as a page in the UI."""
    problems = [_row(problem, f"{count:,}") for problem, count in scored.problems.most_common(batch.MOST_PROBLEMS)]
    failed = [_row(name, why) for name, why in scored.failed.items()]
    tables = ["", "| problem | rows |", "| --- | --- |", *problems] if problems else []
    tables += ["", "| not scored | why |", "| --- | --- |", *failed] if failed else []
    create_markdown_artifact(
        key=f"batch-{model.replace('_', '-')}",
        markdown="\n".join([f"**{scored}**", *tables]),
        description=str(scored),
    )


def _row(*cells: str) -> str:
    """A line of a table; what stands in it may be text from outside."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', '&#124;').replace('<', '&lt;') for cell in cells)} |"
