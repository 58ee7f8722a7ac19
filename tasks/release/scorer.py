"""Client of a release's scorer: its own code and model, in an interpreter of their own, score chunks of rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.ground import settings
from tasks.ground.errors import StageFailed
from tasks.release import scorer_worker

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Scorer:
    """One interpreter, started by the first chunk and ended with the block. Answers come in the order of the chunks."""

    def __init__(self, release: Path, tag: str, scratch: Path) -> None:
        self.release, self.tag, self.scratch = release, tag, scratch
        self.process: subprocess.Popen[str] | None = None
        self.submitted: deque[str] = deque()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()

    def submit(self, name: str, rows: pa.Table, *, way: str = "requests") -> None:
        """Have a chunk scored, while the caller goes on."""
        from pyarrow import parquet

        parquet.write_table(rows, self._path("rows", name), compression="none")
        self.process = self.process or start(self.release, self.scratch / "stderr")
        self.submitted.append(name)
        task = {"rows": str(self._path("rows", name)), "to": str(self._path("answers", name)), "as": way}
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(task) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._failed(self.submitted[0]) from None

    def result(self) -> pa.Table:
        """The answers to the chunk that was submitted first of those that wait."""
        from pyarrow import parquet

        assert self.process is not None
        assert self.process.stdout is not None
        name = self.submitted.popleft()
        if not self.process.stdout.readline():
            raise self._failed(name)
        table = parquet.read_table(self._path("answers", name))
        for what in ("rows", "answers"):
            self._path(what, name).unlink()
        return table

    def _path(self, what: str, name: str) -> Path:
        return self.scratch / f"{what}-{name}"

    def _failed(self, name: str) -> StageFailed:
        text = (self.scratch / "stderr").read_text(encoding="utf-8", errors="replace").strip()[-3000:]
        return StageFailed(f"{self.tag} could not score {name}:\n{text or 'it said nothing'}")


def predict_frame(release: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The predictions of a frame of features by a release's own code, as its evaluation would make them."""
    import pyarrow as pa

    with tempfile.TemporaryDirectory() as folder, Scorer(release, release.name, Path(folder)) as scorer:
        try:
            scorer.submit("rows", pa.Table.from_pandas(rows), way="frame")
            predictions: pd.DataFrame = scorer.result().to_pandas()
        except StageFailed as error:
            raise StageFailed(f"its own code failed: {str(error).splitlines()[-1]}") from None
    return predictions


def start(release: Path, log: Path) -> subprocess.Popen[str]:
    """The interpreter of a release, which has only the release's code of this project."""
    pipe = subprocess.PIPE
    with log.open("w") as stderr:
        return subprocess.Popen(
            [sys.executable, "-I", str(Path(scorer_worker.__file__)), str(release)],
            stdin=pipe,
            stdout=pipe,
            stderr=stderr,
            text=True,
            encoding="utf-8",
            env={**settings.environment(), **os.environ},
        )
