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

    def count(self, model: ServedModel, kind: str) -> None:
        """One more."""
        self._counts.setdefault(model, Counter())[model.today, kind] += 1

    async def save(self) -> None:
        """Add them to those on disk, off the event loop. What cannot be written now is written the next time."""
        for model in list(self._counts):
            counts = self._counts.pop(model)
            try:
                await asyncio.to_thread(error_counts.add, model.name, counts, model.limits.log_days)
            except (OSError, EvergreenError) as error:
                self._counts.setdefault(model, Counter()).update(counts)
                LOG.warning(f"the rejections of {model.name} cannot be written just now: {error}")
