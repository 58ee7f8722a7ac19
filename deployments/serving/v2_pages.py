"""Pages of the Open Inference Protocol: health of the router and of its models, and their metadata.

docs/reference/open-inference-protocol.md has them all; requests for predictions go to a replica, as all do.
"""

from __future__ import annotations

from typing import Any

from deployments.serving.http_error import HttpError
from deployments.serving.replica_pool import ReplicaPool
from deployments.serving.served_model import ServedModel
from tasks.runtime import inference_body

SERVER = {"name": "evergreen", "version": "1", "extensions": inference_body.EXTENSIONS}
"""The metadata of the server; its version is that of its paths, as in /openapi.json."""

PATHS = "GET /v2 /v2/health/live /v2/health/ready /v2/models/<model>[/versions/<version>][/ready], POST …/infer"


def of_model(model: ServedModel, rest: list[str]) -> tuple[int, Any]:
    """Status and content of a page below /v2/models/<model>.

    Raises:
        HttpError: there is no such page, or the version cannot be asked.
    """
    match rest:
        case []:
            return 200, _metadata(model, model.live or model.choose("")[0])
        case ["versions", version]:
            return 200, _metadata(model, model.named(version))
        case ["ready"]:
            is_ready = model.is_ready
        case ["versions", version, "ready"]:
            is_ready = model.named(version).can_answer
        case _:
            raise HttpError(404, f"paths: {PATHS}")
    return 200 if is_ready else 503, {"name": model.name, "ready": is_ready}


def _metadata(model: ServedModel, pool: ReplicaPool) -> dict[str, Any]:
    if not pool.takes_tensors:
        message = f"{pool} was packaged before the Open Inference Protocol was spoken here: see /{model.name}/schema"
        raise HttpError(404, message)
    versions = [other.version for other in model.nameable]
    return {"name": model.name, "versions": versions, "platform": inference_body.PLATFORM, **pool.about["tensors"]}
