"""Every way to fail, one class per cause.

A person fixes a `Mistake`; after a `WorldError` something is repaired or waited for. Then the same command runs again.

An error says what happened, to what, and what to do next. None is swallowed.
"""

from __future__ import annotations

from tasks.runtime.errors import EvergreenError, ModelFileRefused, WorldError, did_you_mean

__all__ = ["EvergreenError", "ModelFileRefused", "WorldError", "did_you_mean"]  # a release knows these too


class Mistake(EvergreenError):
    """A person wrote something that cannot work."""


class ParamsError(Mistake):
    """params.yaml has an unknown key, a wrong type or an impossible value."""


class PolicyError(Mistake):
    """policies/promotion.yaml cannot be read, names what does not exist, or can never be met."""


class NoModel(Mistake):
    """The project has no model yet."""


class ContractError(Mistake):
    """An expectation suite cannot be read or asks for something that does not exist."""


class ModelCodeError(Mistake):
    """A module in models/<name>/ is missing or returns something else than its interface asks."""


class RowsRefused(ModelCodeError):
    """Rows cannot be learned from: a value is missing, or is such as no request may hold, or an id stands twice."""


class EnvironmentDiffers(Mistake):
    """An installed package is not the one that requirements.lock names."""


class SourceUnavailable(WorldError):
    """The upstream, the landing zone or a remote cannot be reached."""


class DataMissing(WorldError):
    """A data version is named, but its files are not here."""


class DataVersionDiffers(WorldError):
    """What the upstream gives now, or data/ holds, is not what data.dvc names."""


class InUse(WorldError):
    """Another process is at work on the same files, for longer than is waited."""


class StageFailed(WorldError):
    """A stage of the graph failed."""


class ReleaseDiffers(WorldError):
    """The packaged release does not answer as the model was evaluated."""


class RegistryUnavailable(WorldError):
    """The MLflow store is locked or gone."""


class RegistryDamaged(WorldError):
    """What is needed was removed in MLflow, and cannot be restored from here."""


class FileTorn(WorldError, ValueError):
    """A file is not whole: half of it, or something else, is there."""


class JournalDamaged(WorldError):
    """The journal's key is not there or is another one, or lines are missing or were changed."""


class NotPromoted(WorldError):
    """A version was withdrawn, or no verdict says that it may replace the champion."""


class NeedsApproval(NotPromoted):
    """The policy wants approvals that are not there, or a freeze is in force."""
