"""Asks the models that an Evergreen router serves."""

from __future__ import annotations

from evergreen_client.answers import Answer, Contribution, Explanation, Prediction
from evergreen_client.client import AsyncClient, Client
from evergreen_client.errors import (
    EvergreenError,
    Failed,
    Refused,
    Unauthorized,
    Unavailable,
    UnknownModel,
    Unreachable,
)

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "Contribution",
    "EvergreenError",
    "Explanation",
    "Failed",
    "Prediction",
    "Refused",
    "Unauthorized",
    "Unavailable",
    "UnknownModel",
    "Unreachable",
]
