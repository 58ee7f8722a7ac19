"""FastAPI and uvicorn: pydantic rows, a DataFrame, predict_proba, in an `async def` (a `def` is three times slower)."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.rows import Row, pipeline, score

app = FastAPI()
model = pipeline()


class Rows(BaseModel):
    """A request."""

    rows: list[Row]


@app.post("/predict")
async def predict(body: Rows) -> dict[str, list[float]]:
    """One probability per row."""
    return {"late": score(model, body.rows)}
