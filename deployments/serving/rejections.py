"""Counts of requests for predictions that got none, as tasks/prediction_log/error_counts.py keeps them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from deployments.serving.served_model import ServedModel
from tasks.ground.errors import EvergreenError
from tasks.prediction_log import error_counts

LOG = logging.getLogger("evergreen.router")


class Rejections:
    """What was counted and is not on disk yet; a kill loses that."""

    def __init__(self) -> None:
        self._counts: dict[ServedModel, Counter[tuple[str, str]]] = {}  # model → day, kind
        self._writes: set[asyncio.Task[None]] = set()

    def count(self, model: ServedModel, kind: str) -> None:
        """One more."""
        self._counts.setdefault(model, Counter())[model.today, kind] += 1

    async def save(self) -> None:
        """Add them to those on disk, off the event loop; ends when all is written that was begun.

        Whoever calls it may be cancelled, as the router's end does: what was taken to be written is written.
        """
        for model in list(self._counts):
            self._writes.add(write := asyncio.create_task(self._write(model, self._counts.pop(model))))
            write.add_done_callback(self._writes.discard)
        await asyncio.shield(asyncio.gather(*self._writes))

    async def _write(self, model: ServedModel, counts: Counter[tuple[str, str]]) -> None:
        """What cannot be written now is written the next time."""
        try:
            await asyncio.to_thread(error_counts.add, model.name, counts, model.limits.log_days)
        except (OSError, EvergreenError) as error:
            self._counts.setdefault(model, Counter()).update(counts)
            LOG.warning(f"the rejections of {model.name} cannot be written just now: {error}")
