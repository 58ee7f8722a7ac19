"""What is registered with Prefect, as the server has it."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.orchestration import registration
from flows.prefect_support import api


def test_a_deployment_that_comes_while_the_server_is_asked_is_left_out_or_has_its_flow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another checkout registers a model just then: without its flow it would be taken for one whose model is gone."""
    server: dict[str, list[dict[str, Any]]] = {"/flows/filter": [], "/deployments/filter": []}

    def call(path: str, _: Any) -> list[dict[str, Any]]:
        answer = list(server[path])
        server["/flows/filter"] = [{"id": "f", "name": "train"}]
        server["/deployments/filter"] = [{"id": "d", "flow_id": "f", "name": "tiny"}]
        return answer

    monkeypatch.setattr(api, "call", call)
    assert registration.registered() == {}
    assert registration.registered().keys() == {"train/tiny"}
