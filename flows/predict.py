"""Predict: a file, a partition or a bucket's prefix is scored to Parquet, as the named release would answer."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.prefect_support.as_task import as_task
from flows.prefect_support.progress import ProgressBar
from tasks.ground.words import many
from tasks.release.batch import batch


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
        source: a file of rows (.csv, .tsv, .parquet, .jsonl) or a folder of such, by path or URL (s3://…); or a
            partition of raw tables, as `flights/2013-10`, or its file in data/ or in the landing zone.
        to: the folder or URL the Parquet files go to; empty: below var/batch/<model>.
        version: champion, challenger or former; the number of a version; or a candidate.
        chunk: rows that are scored at once, and in one Parquet file.
        keep: columns of the source, beside id, time and label, that are copied to the answers; `*`: every one that is
            no feature.
    """
    log = get_run_logger().info
    bar = ProgressBar(f"predict-{model}", "nothing scored yet", log)

    def progress(share: float, result: batch.BatchResult) -> None:
        bar.show(share, f"{share:.0%}: {many(result.rows, 'row')}, {result.refused:,} of them refused")

    scoring = as_task(batch.score, f"score {source}")
    result = scoring(model, source, to or None, version, chunk, keep or [], log=log, progress=progress)
    _publish(model, result)
    result.raise_for_failures()
    return Completed(message=str(result))


def _publish(model: str, result: batch.BatchResult) -> None:
    problems = [(problem, f"{count:,}") for problem, count in result.problems.most_common(batch.MOST_PROBLEMS)]
    lines = [f"**{result}**"]
    for head, rows in ("| problem | rows |", problems), ("| not scored | why |", [*result.failed.items()]):
        if rows:
            lines += ["", head, "| --- | --- |", *(_row(*cells) for cells in rows)]
    key = f"batch-{model.replace('_', '-')}"
    create_markdown_artifact(key=key, markdown="\n".join(lines), description=str(result))


def _row(*cells: str) -> str:
    """A line of a table; its texts may come from outside."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', '&#124;').replace('<', '&lt;') for cell in cells)} |"
