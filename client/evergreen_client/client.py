"""The client: models of a router, asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from evergreen_client.answers import Answer, Explanation, Prediction, Row, plain_rows
from evergreen_client.errors import Refused, UnknownModel
from evergreen_client.transport import Transport

TOO_LARGE = 413
"""The status that refuses a body of more than serving.max_bytes."""


class Client:
    """Asks the models of one router; may be used by several threads.

    Args:
        url: of the router, as `http://127.0.0.1:3000`.
        key: an API key, where the router asks for one.
        timeout: seconds that a request may take, with all of its tries.
        retries: how often it is asked again where there is too much load, or no answer.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout: float = 30.0, retries: int = 4) -> None:
        self._transport = Transport(url, key, timeout, retries)
        self._limits: dict[str, int] = {}

    def close(self) -> None:
        """Close the connections that are kept for the next request."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def models(self) -> list[str]:
        """The names of the models that are served."""
        paths = self.openapi()["paths"]
        return sorted(path.split("/")[1] for path in paths if path.endswith("/predict"))

    def openapi(self) -> dict[str, Any]:
        """The router's description of all of its models."""
        document: dict[str, Any] = self._transport.call("GET", "/openapi.json")
        return document

    def release(self, model: str) -> dict[str, Any]:
        """Where the release that answers comes from: candidate, metrics, lineage."""
        facts: dict[str, Any] = self._transport.call("GET", f"/{model}/release")
        return facts

    def row_schema(self, model: str) -> dict[str, Any]:
        """The JSON schema of a row.

        Raises:
            UnknownModel: no such model is served.
        """
        document = self.openapi()
        operation = document["paths"].get(f"/{model}/predict")
        if operation is None:
            raise UnknownModel(f"{model!r} is not served here; these are: {', '.join(self.models()) or 'none'}", 404)
        body = operation["post"]["requestBody"]["content"]["application/json"]["schema"]
        rows = _resolved(_resolved(body, document)["properties"]["rows"], document)
        self._limits[model] = int(rows.get("maxItems", 1))
        return _resolved(rows["items"], document)

    def predict(
        self,
        model: str,
        rows: Sequence[Row] | Any,
        *,
        keys: Sequence[str] | None = None,
        time: datetime | None = None,
        sticky: str | None = None,
    ) -> Answer:
        """An answer per row, in their order.

        Args:
            model: its name.
            rows: mappings of feature to value; or a DataFrame.
            keys: what you call each row; its label is found by it later.
            time: when it was asked, if that was not now; with a time zone.
            sticky: requests of one such text go to the same release while a canary runs.

        Raises:
            Refused: a row is not as the model takes it; nothing of its request was answered.
            EvergreenError: as errors.py has them.
        """
        plain = plain_rows(rows)
        if keys is not None and len(keys) != len(plain):
            raise ValueError(f"there are {len(plain)} rows and {len(keys)} keys")
        answers = [each for part in self._parts(model, plain, keys) for each in self._ask(model, *part, time, sticky)]
        versions = dict.fromkeys(str(answer["version"]) for answer in answers)
        predictions = tuple(Prediction.of(each) for answer in answers for each in answer["predictions"])
        return Answer(model, next(iter(versions), ""), predictions, tuple(versions))

    def explain(self, model: str, row: Row, *, output: str | None = None) -> Explanation:
        """Which features moved the answer to one row, and by how much; of several labels, the answer to `output`."""
        (plain,) = plain_rows([row])
        content = {"row": plain, **({} if output is None else {"output": output})}
        return Explanation.of_answer(self._transport.call("POST", f"/{model}/explain", content))

    def _parts(
        self, model: str, rows: list[dict[str, Any]], keys: Sequence[str] | None
    ) -> Iterator[tuple[int, list[dict[str, Any]], list[str] | None]]:
        """Rows in requests that the model takes: where each begins, its rows and their keys."""
        if len(rows) > 1 and model not in self._limits:
            self.row_schema(model)
        begin = 0
        while begin < len(rows):
            end = begin + self._limits.get(model, 1)  # `_ask` may have learned meanwhile that it is less
            yield begin, rows[begin:end], list(keys[begin:end]) if keys is not None else None
            begin = end

    def _ask(
        self,
        model: str,
        begin: int,
        rows: list[dict[str, Any]],
        keys: list[str] | None,
        time: datetime | None,
        sticky: str | None,
    ) -> list[dict[str, Any]]:
        """The answers to some rows: one, or several where one body would be too large."""
        content: dict[str, Any] = {"rows": rows}
        content |= {"keys": keys} if keys is not None else {}
        content |= {"time": time.isoformat()} if time is not None else {}
        headers = {"evergreen-key": sticky} if sticky else {}
        try:
            return [self._transport.call("POST", f"/{model}/predict", content, **headers)]
        except Refused as error:
            if error.status == TOO_LARGE and len(rows) > 1:
                half = self._limits[model] = len(rows) // 2
                first, rest = (None, None) if keys is None else (keys[:half], keys[half:])
                answers = self._ask(model, begin, rows[:half], first, time, sticky)
                return answers + self._ask(model, begin + half, rows[half:], rest, time, sticky)
            if begin and error.detail:
                raise Refused(
                    str(error.args[0]).partition("; row ")[0], error.status or 400, _moved(error.detail, begin)
                ) from None
            raise


def _moved(detail: list[dict[str, Any]], by: int) -> list[dict[str, Any]]:
    """Faults whose rows are counted among all rows."""
    return [{**each, "row": each["row"] + by} if isinstance(each.get("row"), int) else each for each in detail]


def _resolved(schema: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """A schema, or the one that it refers to."""
    reference = schema.get("$ref")
    if reference is None:
        return dict(schema)
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return _resolved(found, document)


T = TypeVar("T")


class AsyncClient:
    """As `Client`, awaited: its requests run in threads, at most `concurrency` of them at a time."""

    def __init__(self, url: str, key: str | None = None, *, concurrency: int = 8, **more: Any) -> None:
        self._client = Client(url, key, **more)
        self._free = asyncio.Semaphore(concurrency)

    async def predict(self, model: str, rows: Sequence[Row] | Any, **more: Any) -> Answer:
        """As `Client.predict`."""
        return await self._run(partial(self._client.predict, model, rows, **more))

    async def explain(self, model: str, row: Row, *, output: str | None = None) -> Explanation:
        """As `Client.explain`."""
        return await self._run(partial(self._client.explain, model, row, output=output))

    async def models(self) -> list[str]:
        """As `Client.models`."""
        return await self._run(self._client.models)

    def close(self) -> None:
        """Close the connections that are kept for the next request."""
        self._client.close()

    async def _run(self, call: Callable[[], T]) -> T:
        async with self._free:
            return await asyncio.to_thread(call)
