"""Router: the one HTTP server that clients see. It stays while releases come and go behind it.

`POST /<model>/predict` goes to a replica of the live release, or of the canary, as var/serving/<model>.json desires.
The rollout writes that file, and the next request follows it; no request is lost by a change
(docs/decisions/serving.md).
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from deployments.serving import metrics, request_body, v2_pages
from deployments.serving.admission import Admission
from deployments.serving.cors import Origins
from deployments.serving.http_error import HttpError, Overloaded
from deployments.serving.http_protocol import HttpConnection
from deployments.serving.openapi import document
from deployments.serving.reconciler import DRAIN_S, Reconciler
from deployments.serving.rejections import Rejections
from deployments.serving.replica_pool import NoReplica
from deployments.serving.request_body import Receive, Scope, header
from deployments.serving.served_model import Request, ServedModel
from deployments.status_page import responses
from tasks.ground import log_rotation, paths, settings, yaml_reader
from tasks.ground.errors import Mistake, ParamsError, did_you_mean
from tasks.release.rollout.router_status import UNANSWERED, RouterStatus
from tasks.runtime import inference_body, replica

RECONCILE_S = 0.1  # how often the desired state is looked at
SAVE_S = 2.0  # how often rejections are written to disk: a kill loses as much
SHED_LOG_S = 1.0  # rejections are logged once in so many seconds: overload must not fill the disk

SWITCH_S = 0.0005
"""How long a thread beside the event loop may keep the interpreter to itself while a request waits for it. With
Python's 5 ms a request, which wakes the event loop three times, took 15 ms longer whenever a release was started."""

KEY, REQUEST_ID = b"evergreen-key", b"x-request-id"
LENGTH_HEADER = inference_body.LENGTH_HEADER.lower().encode()
KEY_BYTES = 200  # of a key, that count: a frame to a replica gives its length one byte

PROBED = frozenset({"*", "/", "/healthz", "/readyz"})
"""Where `OPTIONS` is answered though no other site's pages may ask: proxies probe by it."""

JSON, HTML, TEXT = b"application/json", b"text/html; charset=utf-8", b"text/plain; version=0.0.4; charset=utf-8"
BINARY = b"application/octet-stream"

LOG = logging.getLogger("evergreen.router")

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Response(NamedTuple):
    """An answer to a client."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Router:
    """The ASGI application."""

    def __init__(self) -> None:
        self._reconciler = Reconciler()
        self._models = self._reconciler.models
        self._rejections = Rejections()
        self._admission = Admission(os.environ["EVERGREEN_OPEN_PAGES"])
        self._origins = Origins(os.environ["EVERGREEN_ORIGINS"])
        self._since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._run = f"{os.getpid():x}{time.time_ns() // 1_000_000:x}"
        self._numbers = count(1)
        self._shed, self._shed_logged_at = 0, float("-inf")
        self._tasks: list[asyncio.Task[None]] = []

    # ── lifespan ──────────────────────────────────────────────────────────────────────────────────

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await (self._begin() if message["type"] == "lifespan.startup" else self._end())
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _begin(self) -> None:
        paths.router_token().unlink(missing_ok=True)  # of the router before
        self._admission.keep_token()
        await self._reconciler.begin()
        self._tasks = [asyncio.create_task(self._reconcile()), asyncio.create_task(self._save())]

    async def _end(self) -> None:
        """Let every release answer its requests, and write everything down."""
        for task in self._tasks:
            task.cancel()
        await self._reconciler.end()
        await self._rejections.save()

    async def _reconcile(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_S)
            try:
                self._admission.keep_token()
                self._reconciler.reconcile()
            except Exception as error:  # noqa: BLE001 - a file went meanwhile, or anything else: the next look may succeed
                LOG.warning(f"the desired state cannot be read, so nothing changes: {error!r}")

    async def _save(self) -> None:
        while True:
            await asyncio.sleep(SAVE_S)
            await self._rejections.save()
            in_use = {f"{name}-{candidate}" for name, model in self._models.items() for candidate in model.pools}
            try:
                await asyncio.to_thread(log_rotation.sweep, paths.replica_logs(), in_use)
            except OSError as error:
                LOG.warning(f"the logs of replicas cannot be kept within limits: {error}")

    # ── a request ─────────────────────────────────────────────────────────────────────────────────

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        shown_name, name = self._name(scope)
        kind = "failed"
        try:
            response = await self._respond(scope, receive, name)
            kind = _kind(response.status)
        except HttpError as error:
            response = self._reject(scope, name, error)
            kind = "shed" if isinstance(error, Overloaded) else _kind(error.status)
        finally:
            if kind:
                self._count_rejection(scope, kind)
        headers = [(REQUEST_ID, shown_name.encode()), *response.headers]
        if response.status != 204:
            headers += [(b"content-type", response.content_type), (b"content-length", b"%d" % len(response.body))]
            if self._origins.allow_any:
                headers += self._origins.headers(header(scope, b"origin"))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    def _name(self, scope: Scope) -> tuple[str, str]:
        """The request's name in the answer, and in the prediction log: there, no two are the same."""
        own, given = f"{self._run}-{next(self._numbers)}", header(scope, REQUEST_ID)
        if given and len(given) <= 64 and given.isascii() and given.isprintable():
            return given, f"{given}~{own}"
        return own, own

    async def _respond(self, scope: Scope, receive: Receive, name: str) -> Response:
        method, path = scope["method"], scope["path"].strip("/")
        if method == "OPTIONS" and (self._origins.allow_any or scope["path"] in PROBED):
            return self._options(scope, path)
        if method in ("GET", "HEAD") and (page := await self._browser_page(scope, path)):
            return page
        if not self._admission.is_open(path):
            self._admit(scope)
        match path.split("/"):
            case ["operator", model, candidate, "predict"]:
                _allow(scope, "POST")
                return await self._try(scope, receive, name, self._model(model), candidate)
            case [model, ("predict" | "explain") as verb]:
                _allow(scope, "POST")
                return await self._predict(scope, receive, name, self._model(model), verb)
            case ["v2", "models", model, *version, "infer"]:
                _allow(scope, "POST")
                return await self._infer(scope, receive, name, self._model(model), version)
            case parts:
                response = self._page(scope, parts)  # first: where there is no such page, no method is better
                _allow(scope, "GET", "HEAD")
                return response

    def _reject(self, scope: Scope, name: str, error: HttpError) -> Response:
        self._shed += error.status == 503
        if error.status >= 500 and time.monotonic() - self._shed_logged_at > SHED_LOG_S:
            self._shed_logged_at = time.monotonic()
            LOG.warning(f"{error.status} {scope['method']} {scope['path']} {name}: {error}")
        headers = tuple((key.encode(), value.encode()) for key, value in error.headers.items())
        return _json(error.status, {"error": str(error)}, headers)

    def _count_rejection(self, scope: Scope, kind: str) -> None:
        match scope["path"].strip("/").split("/"):
            case [name, "predict"] | ["v2", "models", name, *_, "infer"]:
                if scope["method"] == "POST" and name in self._models:
                    self._rejections.count(self._models[name], kind)

    # ── predictions ───────────────────────────────────────────────────────────────────────────────

    async def _predict(self, scope: Scope, receive: Receive, name: str, model: ServedModel, verb: str) -> Response:
        key = header(scope, KEY).encode()[:KEY_BYTES].decode(errors="ignore")
        body = await request_body.read(scope, receive, model)
        kind = replica.PREDICT if verb == "predict" else replica.EXPLAIN
        pool, status, answer = await model.ask(Request(kind, name, key, body))
        if status == UNANSWERED:
            raise HttpError(503, answer.decode(), **{"retry-after": "2"})
        return Response(status, answer, headers=((b"evergreen-release", str(pool).encode()),))

    async def _infer(self, scope: Scope, receive: Receive, name: str, model: ServedModel, of: list[str]) -> Response:
        """As `_predict`, by the Open Inference Protocol; `of` is [] or ["versions", version]."""
        if of and (len(of) != 2 or of[0] != "versions"):
            raise HttpError(404, f"paths: {v2_pages.PATHS}")
        key = header(scope, KEY).encode()[:KEY_BYTES].decode(errors="ignore")
        body = await request_body.read(scope, receive, model)
        try:
            length = inference_body.json_length(header(scope, LENGTH_HEADER), len(body))
        except inference_body.Refused as error:
            return Response(400, inference_body.refusal(error))
        request = Request(replica.INFER, name, key, inference_body.pack(length, body))
        pool, status, answer = await model.ask(request, of[1] if of else None)
        if status == UNANSWERED:
            raise HttpError(503, answer.decode(), **{"retry-after": "2"})
        length, content = inference_body.unpack(answer)
        headers = ((b"evergreen-release", str(pool).encode()),)
        if length == len(content):
            return Response(status, content, headers=headers)
        return Response(status, content, BINARY, (*headers, (LENGTH_HEADER, b"%d" % length)))

    async def _try(self, scope: Scope, receive: Receive, name: str, model: ServedModel, candidate: str) -> Response:
        """The operator asks one release: neither logged nor counted."""
        if not self._admission.is_from_operator(scope):
            raise HttpError(401, "this is for the operator, whose token is in var/run/router.token")
        pool = model.pools.get(candidate)
        if pool is None:
            running = ", ".join(model.pools)
            raise HttpError(404, f"{model.name}:{candidate} is not kept running; these are: {running}")
        body = await request_body.read(scope, receive, model)
        try:
            return Response(*await pool.ask(replica.TRY, name, "", body))
        except NoReplica as error:
            raise HttpError(503, str(error)) from None

    # ── access ────────────────────────────────────────────────────────────────────────────────────

    def _admit(self, scope: Scope, scheme: str = "Bearer") -> None:
        """Reject a request without an API key, where one is needed. A browser understands the scheme Basic only."""
        if not self._is_admitted(scope):
            challenge = {"www-authenticate": f'{scheme} realm="Evergreen"'}
            raise HttpError(401, "an API key is needed: authorization: Bearer <key>, or x-api-key: <key>", **challenge)

    def _is_admitted(self, scope: Scope) -> bool:
        try:
            return self._admission.admits(scope)
        except (OSError, ValueError) as error:
            LOG.warning(str(error))
            raise HttpError(503, "the API keys cannot be read, so no request is admitted") from None

    def _options(self, scope: Scope, path: str) -> Response:
        """For a browser, before it lets another site's page ask, or a proxy that probes."""
        methods = "POST" if path.endswith(("/predict", "/explain", "/infer")) else "GET, HEAD"
        preflight = self._origins.preflight(header(scope, b"origin"), methods)
        return Response(204, b"", headers=((b"allow", f"{methods}, OPTIONS".encode()), *preflight))

    # ── pages ─────────────────────────────────────────────────────────────────────────────────────

    async def _browser_page(self, scope: Scope, path: str) -> Response | None:
        """What a browser gets instead of JSON. Reports show rows of the data: never without a key, where there are."""
        name = path.partition("/")[0]
        if "text/html" not in header(scope, b"accept") or name not in ("", "status", "reports"):
            return None
        if name == "reports" or not self._admission.is_open("status"):
            self._admit(scope, "Basic")
        page = responses.report if name == "reports" else responses.status
        status, body, headers = await asyncio.to_thread(page, scope["path"])
        return Response(status, body, HTML, headers)

    def _page(self, scope: Scope, parts: list[str]) -> Response:
        match parts:
            case ["v2", "models", model, *rest]:
                return _json(*v2_pages.of_model(self._model(model), rest))
            case ["v2", "health", ("live" | "ready") as what]:
                is_so = what == "live" or not self._late()
                return _json(200 if is_so else 503, {what: is_so})
            case ["v2", "models" | "health", *_]:
                raise HttpError(404, f"paths: {v2_pages.PATHS}")
            case ["v2"]:
                return _json(200, v2_pages.SERVER)
            case [model, what]:
                return _json(200, self._about(self._model(model), what))
            case [what]:
                return self._overview(scope, what)
        raise HttpError(404, self._paths())

    def _overview(self, scope: Scope, what: str) -> Response:
        if what == "healthz":
            return _json(200, {"status": "alive"})
        if what == "readyz":
            late = self._late()
            names = {"waits_for": late} if late and self._is_admitted(scope) else {}
            return _json(503 if late else 200, {"status": "starting" if late else "ready", **names})
        if what == "status":
            models = {name: model.status() for name, model in self._models.items()}
            status = RouterStatus(pid=os.getpid(), since=self._since, shed=self._shed, models=models)
            return Response(200, status.model_dump_json().encode())
        if what == "metrics":
            return Response(200, metrics.exposition(self._models.values(), self._shed), TEXT)
        if what == "openapi.json":
            live = {name: model.live.about for name, model in self._models.items() if model.live and model.live.about}
            return _json(200, document(live))
        if what == "":
            releases = {name: model.desired.as_json()["live"] for name, model in self._models.items()}
            return _json(200, {"evergreen": "serves models", "models": releases, "paths": self._paths()})
        raise HttpError(404, self._paths())

    def _late(self) -> list[str]:
        """The models that should be live, and are not ready."""
        return [name for name, model in self._models.items() if model.desired.live and not model.is_ready]

    def _about(self, model: ServedModel, what: str) -> Any:
        if what == "live":
            desired = model.desired.as_json()
            return {"model": model.name, "live": desired["live"], "canary": desired["canary"], "ready": model.is_ready}
        if what in ("schema", "release"):
            about = (model.live or model.choose("")[0]).about
            own = ("schemas", "protocol", "seconds", "edges", "tensors")  # those behind schemas are for the router only
            return about["schemas"] if what == "schema" else {key: about[key] for key in about if key not in own}
        raise HttpError(404, self._paths())

    def _model(self, name: str) -> ServedModel:
        if name in self._models:
            return self._models[name]
        if name in _configured():
            why = f"{name} is not served yet: its first champion is rolled out within minutes (see /status/)"
            raise HttpError(503, why, **{"retry-after": "5"})
        raise HttpError(404, f"no model {name!r} is served{did_you_mean(name, [*self._models, *_configured()])}")

    def _paths(self) -> str:
        predict = " ".join(f"/{name}/predict" for name in self._models) or "(no model is served yet)"
        others = f"…/live …/schema …/release / /status /metrics /openapi.json; {v2_pages.PATHS}"
        return f"paths: POST {predict} (and …/explain), GET {others}"


def _configured() -> tuple[str, ...]:
    """The models of params.yaml; none where it is not there, as in an image, or cannot be read."""
    path = settings.ROOT / "params.yaml"
    with suppress(FileNotFoundError):
        return _models_of(path, path.stat().st_mtime_ns)
    return ()


@lru_cache(maxsize=1)
def _models_of(path: Path, _changed_at: int) -> tuple[str, ...]:
    content: Any = None
    with suppress(Mistake, OSError):
        content = yaml_reader.read(path, path.name, ParamsError, dvc_reads=True)
    models = content.get("models") if isinstance(content, dict) else None
    return tuple(models) if isinstance(models, dict) else ()


def _json(status: int, content: Any, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    return Response(status, json.dumps(content).encode(), headers=headers)


def _kind(status: int) -> str:
    """How a request without a prediction is counted."""
    return "failed" if status >= 500 else "refused" if status >= 400 else ""


def _allow(scope: Scope, *methods: str) -> None:
    if scope["method"] not in methods:
        allowed = ", ".join(methods)
        raise HttpError(405, f"this path takes {allowed}, not {scope['method']}", allow=allowed)


def main() -> None:
    """Serve on the socket that EVERGREEN_LISTENING_FD names, or on EVERGREEN_HOST and EVERGREEN_PORT."""
    inherited = os.environ.get("EVERGREEN_LISTENING_FD")
    if inherited:
        listening = socket.socket(fileno=int(inherited))
    else:
        host, port = os.environ["EVERGREEN_HOST"], int(os.environ["EVERGREEN_PORT"])
        listening = socket.create_server((host, port), backlog=2048)
    config = uvicorn.Config(
        Router(), loop="uvloop", http=HttpConnection, lifespan="on", access_log=False, log_level="warning",
        server_header=False, date_header=False, proxy_headers=False, ws="none", timeout_keep_alive=75,
        timeout_graceful_shutdown=int(DRAIN_S),
    )  # fmt: skip
    logging.basicConfig(format="%(message)s", level=logging.WARNING)  # to standard error: var/log/router.log
    logging.raiseExceptions = False  # where the disk of the log is full, the router goes on without
    for logger in (LOG, logging.getLogger("uvicorn.error"), logging.getLogger("asyncio")):
        logger.addFilter(log_rotation.RepeatFilter())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
