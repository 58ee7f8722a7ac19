"""BentoML: pydantic rows in, probabilities out; without batching, and with adaptive batching."""

from __future__ import annotations

import os

import bentoml

from benchmarks.peers.rows import Row, pipeline, score

LATENCY_MS = int(os.environ.get("BENCH_LATENCY_MS", "60000"))
"""BentoML's own default is 60,000."""


@bentoml.service(workers=1, traffic={"timeout": 30})
class Plain:
    """One request after the other."""

    def __init__(self) -> None:
        self.model = pipeline()

    @bentoml.api
    def predict(self, rows: list[Row]) -> list[float]:
        """One probability per row."""
        return score(self.model, rows)


@bentoml.service(workers=1, traffic={"timeout": 30})
class Batched:
    """Requests that wait are put together."""

    def __init__(self) -> None:
        self.model = pipeline()

    @bentoml.api(batchable=True, max_batch_size=256, max_latency_ms=LATENCY_MS)
    def predict(self, rows: list[Row]) -> list[float]:
        """One probability per row."""
        return score(self.model, rows)
