"""The request and the result of a backtest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from tasks.ground import numbers, params
from tasks.lifecycle import backtest_history

if TYPE_CHECKING:
    from tasks.lifecycle.policy_simulator import PolicyOutcome

Policy = Literal["never", "always", "monthly", "drift", "quality", "configured"]
EVERY: tuple[Policy, ...] = ("never", "always", "monthly", "drift", "quality", "configured")


@dataclass(frozen=True)
class BacktestRequest:
    """Which history, and which policies."""

    source: backtest_history.Source = "data"
    since: date | None = None
    until: date | None = None
    policies: tuple[Policy, ...] = EVERY
    configured: params.Retrain | None = None
    """In place of the one in params.yaml."""


@dataclass(frozen=True)
class BacktestResult:
    """The outcome of every policy of a model."""

    name: str
    loss: str
    """The loss that is compared: the gate's."""
    configured: params.Retrain
    outcomes: tuple[PolicyOutcome, ...]

    def of(self, policy: str) -> PolicyOutcome | None:
        """The outcome of a policy, if it was requested."""
        return next((outcome for outcome in self.outcomes if outcome.policy == policy), None)

    def kept(self, outcome: PolicyOutcome) -> float | None:
        """The share of the gain in loss, of «always» over «never», that a policy keeps; None without these two."""
        never, always = self.of("never"), self.of("always")
        if never is None or always is None or never.mean_loss == always.mean_loss:
            return None
        return (never.mean_loss - outcome.mean_loss) / (never.mean_loss - always.mean_loss)

    def summary(self) -> dict[str, Any]:
        """The table, as JSON values; equal ledgers give equal summaries."""
        return {
            outcome.policy: {
                "loss": numbers.short(outcome.mean_loss),
                "regret": numbers.short(outcome.regret, of=outcome.mean_loss),
                "gain_kept": None if (kept := self.kept(outcome)) is None else round(kept, 4),
                **{what: outcome.count(what) for what in ("trained", "promoted", "refused", "alarms")},
            }
            for outcome in self.outcomes
        }

    def sentence(self) -> str:
        """The result, as briefly as can be."""
        chosen = self.of("configured") or self.outcomes[-1]
        kept, always = self.kept(chosen), self.of("always")
        gain = f", {kept:.0%} of what «always» gains over «never»" if kept is not None else ""
        trained = f"{chosen.count('trained')} trainings" + (f" of {always.count('trained')}" if always else "")
        return f"{self.name}: «{chosen.policy}» has a {self.loss} of {chosen.mean_loss:.4f}{gain}, with {trained}"
