"""Who looks every few seconds whether the champion serves, and wakes deploy where somebody else does.

A promotion by a flow wakes it by an event; an alias that was set in MLflow's UI and a rollback tell nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from flows import api, wakes
from tasks import params
from tasks.release import champion


@dataclass
class Promotions:
    """What it has woken deploy for."""

    under_way: Callable[[str], bool]
    """Whether a run of a deployment (flow/name) is due, starting or running."""
    woken: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    """Model → the champion, and who served. Once for each pair: what a run could not do, the schedule tries again."""

    def look(self, said: params.Params) -> Iterator[str]:
        """Look once; gives a line for each flow that is woken.

        Raises:
            ApiSilent: the Prefect server does not answer.
        """
        for model in said.models:
            change = champion.change(model)
            if change is None:
                self.woken.pop(model, None)
            elif change != self.woken.get(model) and not self.under_way(f"deploy/{model}"):
                run = wakes.wake(f"deploy/{model}")
                self.woken[model] = change
                if run:
                    yield f"{change[0]} is champion of {model}: deploy/{model} is woken, {api.run_url(run)}"
