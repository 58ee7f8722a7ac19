"""The body of a request, as far as no router is needed for it."""

from __future__ import annotations

import asyncio

import pytest

from deployments.serving import request_body
from deployments.serving.fork_server_client import ForkServer
from deployments.serving.http_error import HttpError
from deployments.serving.served_model import ServedModel


def test_a_body_that_is_too_large_is_refused_by_its_announced_length() -> None:
    """Before any of it is read: the client hears of it before it has sent much."""
    model = ServedModel("small", ForkServer())
    announced = str(model.limits.max_bytes + 1).encode()

    async def receive() -> dict[str, object]:
        pytest.fail("it is read")

    with pytest.raises(HttpError, match=r"larger than 5000000 bytes \(serving\.max_bytes\)") as refusal:
        asyncio.run(request_body.read({"headers": [(b"content-length", announced)]}, receive, model))
    assert refusal.value.status == 413
