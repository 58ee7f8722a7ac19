"""The router: the one HTTP server that clients see. It stays while releases come and go behind it.

`POST /<model>/predict` is handed to a replica of the release that is live, or of the canary; which that is, is said by
var/serving/<model>.json, written by the rollout (stages.py). The router only does what it says: a change
reaches the next request, and no request is lost by it (docs/decisions/serving.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BaseModel, Field

from deployments.serving import (
    api_keys,
    content_encoding,
)
from deployments.serving.admission import Admission
from deployments.serving.cors import Origins
from deployments.serving.http_protocol import Connection
from deployments.serving.openapi import document
from deployments.serving.replica_pool import EDGES_MS, Deadly, Nursery, Release, Unanswered, say
from deployments.status_page import responses
from tasks.ground import files, log_rotation, params, paths, settings
from tasks.ground.errors import EvergreenError, did_you_mean
from tasks.prediction_log import error_counts
from tasks.release.registry import desired_state as rollouts
from tasks.release.rollout.router_status import LATE
from tasks.runtime import replica

FOLLOW_S = 0.1
"""How often the router looks what should serve."""

GONE_S = 10.0
"""A model whose file is gone serves on for so long: where somebody has removed it by mistake, it is made again."""

COUNTED_S = 2.0
"""How often it is written down what was not answered: a kill loses as much."""

BODY_S = 30.0
"""How long a client may take to send a body."""

CANARY_S = 5.0
"""How long a canary may take for an answer: then that is counted against it, and the live release is asked."""

DRAIN_S = 30.0
"""How long a release that is no longer wanted may take to answer what it was asked."""

SWITCH_S = 0.0005
"""How long a thread beside the event loop may keep the interpreter to itself while a request waits for it. With
Python's 5 ms a request, which wakes the event loop three times, took 15 ms longer whenever a release was started."""

TURNS = 3
"""How many releases are asked one after the other: who is live, who stands by, and who is live again by then."""

KEY, REQUEST_ID = b"evergreen-key", b"x-request-id"

PROBED = frozenset({"*", "/", "/healthz", "/readyz"})
"""Where `OPTIONS` is answered though no other site's pages may ask: by it, proxies see who lives."""

BODIES = 16
"""So many of the largest requests may wait at one release: as bytes, whatever their number."""

KEY_BYTES = 200
"""Of a key, that count: a frame to a replica gives its length one byte."""

Asked = tuple[int, str, str, bytes]
"""A request as a release is asked: kind, name, key, body."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


class Overloaded(Refused):
    """A request that is too much just now."""

    def __init__(self, message: str, retry_after: str) -> None:
        super().__init__(503, message, **{"retry-after": retry_after})


class _One(BaseModel):
    candidate: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    version: int | None = None


class _Beside(_One):
    role: str


class _Canary(BaseModel):
    candidate: str
    share: Annotated[float, Field(ge=0, le=1)]


class _Wanted(BaseModel):
    live: _One | None
    beside: list[_Beside]
    canary: _Canary | None


NOTHING: dict[str, Any] = {"live": None, "beside": [], "canary": None}


def _read(path: Path) -> dict[str, Any]:
    """What should serve, as a rollout wrote it.

    Raises:
        ValueError: it is something else.
    """
    held: dict[str, Any] = files.read_json(path)
    _Wanted.model_validate(held)
    return held


Written = tuple[int, int, int]


def _written(path: Path) -> Written:
    """Changes when a file does."""
    held = path.stat()
    return held.st_mtime_ns, held.st_ino, held.st_size


class Model:
    """What is served of one model."""

    def __init__(self, name: str, nursery: Nursery) -> None:
        self.name = name
        self.nursery = nursery
        self.wanted = NOTHING
        self.serving: params.Serving | None = None
        self.releases: dict[str, Release] = {}
        self.live: Release | None = None
        """Who answers now: the wanted one, once it is ready; until then whoever was it before."""
        self.standby: Release | None = None
        """The former release, if it is warm: who is live and cannot answer is stood in for."""
        self.patient = 0
        """How many requests wait for the first one to be ready."""
        self.coming = 0
        """Bytes of the bodies that are not whole yet, or wait for the first release."""
        self.zone = ZoneInfo("UTC")
        self.day = datetime.now(UTC).date().isoformat()
        """Today, in its zone."""

    def choose(self, key: str) -> tuple[Release, bool]:
        """Whom to ask, and whether that is a canary. The same key is always of the same mind."""
        canary = self.wanted["canary"]
        if canary and (release := self.releases.get(canary["candidate"])) and release.replicas:
            drawn = _share(f"{canary['candidate']}/{key}") if key else random.random()  # noqa: S311
            if drawn < canary["share"]:
                return release, True
        if self.live is not None and (self.standby is None or self.live.can_answer):
            return self.live, False
        if self.standby is not None:
            return self.standby, False
        raise Refused(503, f"{self.name} has no release that is ready{self._why()}", **{"retry-after": "2"})

    @property
    def is_ready(self) -> bool:
        """Whether somebody answers, or is about to once more."""
        return self.standby is not None or (self.live is not None and self.live.state != "failed")

    def another(self, release: Release) -> Release | None:
        """Who can be asked instead of one that gave no answer: who is live, or stands by."""
        if self.standby is None and release is self.live:  # asked for each request
            return None
        others = [one for one in (self.live, self.standby) if one and one is not release]
        able = [one for one in others if one.can_answer or release.draining]
        return able[0] if able else None

    def _why(self) -> str:
        wanted = self.releases.get(self.wanted["live"]["candidate"]) if self.wanted["live"] else None
        return f": {wanted.trouble}" if wanted and wanted.state == "failed" else ""

    async def await_first(self, serving: params.Serving, size: int) -> None:
        """While nobody serves yet, wait for who is to: a router that was killed is back before its releases are.

        Args:
            serving: how many may wait, and for how long.
            size: bytes of the request's body.

        Raises:
            Refused: too many wait already.
        """
        awaited = self.releases.get(self.wanted["live"]["candidate"]) if self.wanted["live"] else None
        if awaited is None:
            return
        if self.patient >= serving.max_waiting:
            raise Overloaded(f"{self.name}: {self.patient} requests wait for its start", retry_after="2")
        self.patient += 1
        try:
            self.take(size)
            async with asyncio.timeout(serving.timeout_s):
                while self.live is None and self.standby is None and awaited.state != "failed":
                    await asyncio.sleep(FOLLOW_S / 2)
        except TimeoutError:
            return
        finally:
            self.patient -= 1
            self.coming -= size

    def take(self, size: int) -> None:
        """Count a part of a body; who calls takes it off again, also when it is refused.

        Raises:
            Overloaded: that is too much at once.
        """
        assert self.serving is not None
        self.coming += size
        if self.coming > BODIES * self.serving.max_bytes:
            raise Overloaded(f"{self.name}: {self.coming:,} bytes of requests are coming in already", retry_after="1")

    def follow(self, wanted: dict[str, Any], serving: params.Serving, drained: Callable[[Release], None]) -> None:
        """Start what is newly wanted, let go what is not, and let the wanted one be live as soon as it is ready."""
        self.wanted, self.serving = wanted, serving
        self.day = datetime.now(self.zone).date().isoformat()
        named = {one["candidate"]: one for one in (*wanted["beside"], *([wanted["live"]] if wanted["live"] else []))}
        for candidate, one in named.items():
            if candidate not in self.releases:
                self.releases[candidate] = _release(self.name, candidate, one.get("version"), serving, self.nursery)
                self.releases[candidate].start(gently=self.live is not None)
        target = self.releases.get(wanted["live"]["candidate"]) if wanted["live"] else None
        if target is None or target.replicas:
            self.live = target
        for release in self.releases.values():
            release.end_the_stalled()
        self.standby = self._standby()
        for candidate in [c for c, one in self.releases.items() if c not in named and one is not self.live]:
            drained(self.releases.pop(candidate))

    def _standby(self) -> Release | None:
        former = [self.releases.get(one["candidate"]) for one in self.wanted["beside"] if one["role"] == "former"]
        return next((one for one in former if one and one is not self.live and one.can_stand_in), None)

    def status(self) -> dict[str, Any]:
        """What `GET /status` says of it."""
        roles = {one["candidate"]: one["role"] for one in self.wanted["beside"]}
        canary = (self.wanted["canary"] or {}).get("candidate")
        told = {}
        for candidate, one in self.releases.items():
            role = "live" if one is self.live else "canary" if candidate == canary else roles.get(candidate, "live")
            told[candidate] = {"role": role, **one.status()}
        able = self.live if self.standby is None or (self.live and self.live.can_answer) else self.standby
        answers = able.candidate if able else None
        return {**self.wanted, "answers": answers, "releases": told}


def _share(text: str) -> float:
    """A number from 0 to 1 that is always the same for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / 2**56


def _release(model: str, candidate: str, version: int | None, serving: params.Serving, nursery: Nursery) -> Release:
    folder = Path(os.environ["BENTOML_HOME"]) / "bentos" / model / candidate / "src"
    return Release(
        model,
        candidate,
        version,
        folder,
        nursery,
        log=paths.incoming_predictions(model),
        said=paths.replica_logs() / f"{model}-{candidate}.log",
        size=serving.replicas,
        timeout_s=serving.timeout_s,
    )


class Router:
    """The ASGI application."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self.token = secrets.token_urlsafe(32)
        self.nursery = Nursery()
        self.admission = Admission(api_keys.Keys(api_keys.path()), self.token, os.environ["EVERGREEN_OPEN_PAGES"])
        self.origins = Origins(os.environ["EVERGREEN_ORIGINS"])
        self.shed = 0
        self._told_shed = float("-inf")
        self.unanswered: Counter[tuple[str, str, str]] = Counter()
        """Model, day, kind: what is not written down yet."""
        self._requests = count(1)
        self._run = f"{os.getpid():x}{time.time_ns() // 1_000_000:x}"
        self._seen: dict[str, Written] = {}
        self._gone: dict[str, float] = {}
        """Model → since when its file is not there."""
        self._told_of: dict[str, str] = {}
        self._params: params.Params | None = None
        self._params_read: Written | None = None
        """What was read last, also where it was broken: to read it takes as long as some requests."""
        self._draining: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    # ── what should serve ─────────────────────────────────────────────────────────────────────────

    async def begin(self) -> None:
        """Start what should serve, and follow it from now on."""
        paths.router_token().unlink(missing_ok=True)  # of the router before
        self._keep_token()
        await self.nursery.wake()
        self._look()
        self._following = asyncio.create_task(self._follow())
        self._counting = asyncio.create_task(self._count())

    async def end(self) -> None:
        """Let every release answer what it was asked, and end it."""
        if self._following:
            self._following.cancel()
        releases = [release for model in self.models.values() for release in model.releases.values()]
        await asyncio.gather(*(release.drain(DRAIN_S) for release in releases), *self._draining)
        self._over.set()
        if self._counting:
            await self._counting

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                self._keep_token()
                self._look()
            except Exception as error:  # noqa: BLE001 - a file that went meanwhile; whatever else: it is looked at again
                self._tell("var/serving", f"what should serve cannot be looked at, so nothing changes: {error!r}")

    def _keep_token(self) -> None:
        """Where the operator finds it: also after its folder was lost."""
        path = paths.router_token()
        if not path.exists():
            _keep_secret(path, self.token)

    def _look(self) -> None:
        folder = paths.desired_states()
        there = {path.stem: path for path in folder.glob("*.json") if path.name != "keys.json"}
        said = self._said()
        now = time.monotonic()
        self._gone = {name: self._gone.get(name, now) for name in self.models if name not in there}
        for name in [*there, *self._gone]:
            model = self.models.setdefault(name, Model(name, self.nursery))
            written = _written(there[name]) if name in there else None
            wanted = model.wanted
            if now - self._gone.get(name, now) > GONE_S:
                wanted = NOTHING
                self._seen.pop(name, None)  # it may come back as it was
            elif name in there and self._seen.get(name) != written:
                try:
                    wanted = _read(there[name])
                except (OSError, ValueError) as error:  # half a file of a person: it is looked at again and again
                    self._tell(name, f"{there[name]} cannot be read, so nothing changes: {error}")
                    written = None
                    if model.wanted is NOTHING:  # torn by a power cut: nobody serves until it is made again
                        wanted = rollouts.read(name).as_json()
            serving = params.Serving()
            if said and name in said.models:
                serving, model.zone = said.models[name].serving, ZoneInfo(said.models[name].timezone)
            model.follow(wanted, serving, self._drain)
            if written:
                self._seen[name] = written
            if name not in there and not model.releases:
                del self.models[name]

    def _said(self) -> params.Params | None:
        """What params.yaml says, or said when it could be read last; None: never."""
        path = settings.ROOT / "params.yaml"
        try:
            if (changed := _written(path)) != self._params_read:
                self._params = params.load()
                self._params_read = changed
        except (OSError, EvergreenError) as error:
            if not isinstance(error, OSError):
                self._params_read = changed
            self._tell(path.name, f"{path} cannot be read, so its numbers stay as they are: {error}")
        return self._params

    def _tell(self, about: str, text: str) -> None:
        """Tell an error, once."""
        if self._told_of.get(about) != text:
            self._told_of[about] = text
            say(text)

    def _drain(self, release: Release) -> None:
        task = asyncio.create_task(release.drain(DRAIN_S))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    # ── what was not answered ─────────────────────────────────────────────────────────────────────

    def _note(self, scope: Scope, status: int, *, is_overload: bool) -> None:
        """Count a request for a prediction that got none, as tasks/prediction_log/error_counts.py names it."""
        match scope["path"].strip("/").split("/"):
            case [name, "predict"] if scope["method"] == "POST" and (model := self.models.get(name)):
                kind = "shed" if is_overload else "failed" if status >= 500 else "refused"
                self.unanswered[name, model.day, kind] += 1

    async def _count(self) -> None:
        """Write down what was counted, every now and then and at the end."""
        while not self._over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), COUNTED_S)
            for name in {name for name, _, _ in self.unanswered}:
                await self._write_down(name)
            await self._tidy()

    async def _tidy(self) -> None:
        """Keep the replicas' own words within limits."""
        in_use = {f"{name}-{candidate}" for name, model in self.models.items() for candidate in model.releases}
        try:
            await asyncio.to_thread(log_rotation.sweep, paths.replica_logs(), in_use)
        except OSError as error:
            self._tell("logs", f"the logs of replicas cannot be kept within limits: {error}")

    async def _write_down(self, name: str) -> None:
        """Off the event loop, as it waits for the disk. What cannot be written now is written the next time."""
        own = {key: self.unanswered.pop(key) for key in list(self.unanswered) if key[0] == name}
        serving = self.models[name].serving if name in self.models else None
        keep_days = (serving or params.Serving()).log_days
        counts = {(day, kind): number for (_, day, kind), number in own.items()}
        try:
            await asyncio.to_thread(error_counts.add, name, counts, keep_days)
        except (OSError, EvergreenError) as error:
            self.unanswered.update(own)
            self._tell(f"unanswered {name}", f"what was not answered cannot be written down just now: {error}")

    # ── requests ──────────────────────────────────────────────────────────────────────────────────

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        given = _header(scope, REQUEST_ID)
        own = f"{self._run}-{next(self._requests)}"
        name = f"{given}~{own}" if given and len(given) <= 64 and given.isascii() and given.isprintable() else own
        headers = [(b"x-request-id", (given if name != own else own).encode())]
        if self.origins.are_any:
            headers += self.origins.headers(_header(scope, b"origin"))
        status, is_overload = 500, False  # of what nobody has foreseen
        try:
            if scope["method"] == "OPTIONS" and (self.origins.are_any or scope["path"] in PROBED):
                status, body, kind = 204, b"", b""
                headers = [headers[0], *self._options(scope, _header(scope, b"origin"))]
            elif page := await self._for_people(scope):
                status, body, kind = page.status, page.body, b"text/html; charset=utf-8"
                headers += page.headers
            else:
                status, body, kind = await self._answer(scope, receive, name, headers)
        except Refused as refused:
            status, body, kind = refused.status, json.dumps({"error": str(refused)}).encode(), b"application/json"
            headers += [(key.encode(), value.encode()) for key, value in refused.headers.items()]
            self.shed += status == 503
            if status >= 500 and time.monotonic() - self._told_shed > 1:  # or words would fill the disk under overload
                self._told_shed = time.monotonic()
                say(f"{status} {scope['method']} {scope['path']} {name}: {refused}")
            is_overload = isinstance(refused, Overloaded)
        finally:
            if status >= 400:
                self._note(scope, status, is_overload=is_overload)
        if status != 204:
            headers += [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.begin()
            else:
                await self.end()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _answer(
        self, scope: Scope, receive: Receive, name: str, headers: list[tuple[bytes, bytes]]
    ) -> tuple[int, bytes, bytes]:
        if not self.admission.is_open(scope["path"].strip("/")):
            self._refuse_strangers(scope)
        match scope["path"].strip("/").split("/"):
            case ["operator", model, candidate, "predict"]:
                self._only(scope, "POST")
                return *(await self._try(scope, receive, name, model, candidate)), b"application/json"
            case [model, ("predict" | "explain") as verb]:
                self._only(scope, "POST")
                return *(await self._ask(scope, receive, name, headers, model, verb)), b"application/json"
            case [model, what]:
                self._only(scope, "GET", "HEAD")
                return 200, json.dumps(self._told(self._model(model), what)).encode(), b"application/json"
            case ["metrics"]:
                self._only(scope, "GET", "HEAD")
                return 200, self._metrics(), b"text/plain; version=0.0.4; charset=utf-8"
            case [page]:
                status, said = self._page(page, is_known=page != "readyz" or self._admits(scope))
                self._only(scope, "GET", "HEAD")
                return status, json.dumps(said).encode(), b"application/json"
        raise Refused(404, self._paths())

    def _options(self, scope: Scope, origin: str) -> list[tuple[bytes, bytes]]:
        """What `OPTIONS` is told: a browser, before it lets another site's page ask, or a proxy that sees who lives."""
        path = scope["path"].strip("/").split("/")
        methods = "POST" if path[-1] in ("predict", "explain") and len(path) > 1 else "GET, HEAD"
        return [(b"allow", f"{methods}, OPTIONS".encode()), *self.origins.preflight(origin, methods)]

    async def _for_people(self, scope: Scope) -> responses.PageResponse | None:
        """What a browser is shown; None where an application asks. Reports show rows of the data: not to strangers."""
        if scope["method"] not in ("GET", "HEAD") or not responses.is_browser(_header(scope, b"accept")):
            return None
        match scope["path"].strip("/").split("/"):
            case ["" | "status"]:
                if not self.admission.is_open("status"):
                    self._refuse_strangers(scope, "Basic")
                return await asyncio.to_thread(responses.status, scope["path"])
            case ["reports", *_]:
                self._refuse_strangers(scope, "Basic")
                return await asyncio.to_thread(responses.report, scope["path"])
        return None

    def _only(self, scope: Scope, *methods: str) -> None:
        if scope["method"] not in methods:
            raise Refused(405, self._paths(), allow=", ".join(methods))

    async def _ask(
        self, scope: Scope, receive: Receive, name: str, headers: list[tuple[bytes, bytes]], asked: str, verb: str
    ) -> tuple[int, bytes]:
        model = self._model(asked)
        assert model.serving is not None
        key = _header(scope, KEY).encode()[:KEY_BYTES].decode(errors="ignore")
        body = await _body(scope, receive, model)
        kind = replica.PREDICT if verb == "predict" else replica.EXPLAIN
        if model.live is None:
            await model.await_first(model.serving, len(body))
        release, is_canary = model.choose(key)
        if release.waiting >= model.serving.max_waiting:
            raise Overloaded(f"{asked}: {release.waiting} requests wait already", retry_after="1")
        if release.waiting_bytes > BODIES * model.serving.max_bytes:
            raise Overloaded(f"{asked}: {release.waiting_bytes:,} bytes wait already", retry_after="1")
        request = kind, name, key, body
        release, status, answer = await self._first_answer(model, release, is_canary, request)
        if status == 503:
            raise Refused(503, answer.decode(), **{"retry-after": "2"})
        headers.append((b"evergreen-release", f"{asked}:{release.candidate}".encode()))
        return status, answer

    async def _first_answer(
        self, model: Model, release: Release, is_canary: bool, request: Asked
    ) -> tuple[Release, int, bytes]:
        """Who answered, and what: a canary, who is live, or who stands by; 503 and the reason, where nobody does."""
        if not is_canary or model.live is None:
            return await _in_turn(model, release, request)
        canary, (status, answer) = release, await _of_canary(release, request)
        if status < 400 or model.live in (None, canary):
            return canary, status, answer
        # also where it refuses: a client is not to learn of it
        failed, (release, status, answer) = status, await _in_turn(model, model.live, request)
        if request[0] == replica.PREDICT:
            canary.failed_alone += status < 400 and failed not in LATE
        return release, status, answer

    async def _try(self, scope: Scope, receive: Receive, name: str, asked: str, candidate: str) -> tuple[int, bytes]:
        """An operator asks one release: neither logged nor counted."""
        if not self.admission.is_operators(scope):
            raise Refused(401, "this is for the operator, whose token is in var/run/router.token")
        model = self._model(asked)
        release = model.releases.get(candidate)
        if release is None or model.serving is None:
            raise Refused(404, f"{asked}:{candidate} is not kept running; there are: {', '.join(model.releases)}")
        body = await _body(scope, receive, model)
        try:
            return await release.ask(replica.TRY, name, "", body)
        except Unanswered as error:
            raise Refused(503, str(error)) from None

    def _refuse_strangers(self, scope: Scope, scheme: str = "Bearer") -> None:
        """Who has no API key, where one is needed.

        Args:
            scope: the request.
            scheme: how a key is asked for: a browser understands Basic only.
        """
        if not self._admits(scope):
            challenge = {"www-authenticate": f'{scheme} realm="Evergreen"'}
            raise Refused(401, "an API key is needed: authorization: Bearer <key>, or x-api-key: <key>", **challenge)

    def _admits(self, scope: Scope) -> bool:
        try:
            return self.admission.admits(scope)
        except (OSError, ValueError) as error:
            self._tell("keys", str(error))
            raise Refused(503, "the API keys cannot be read: nobody is admitted") from None

    def _model(self, name: str) -> Model:
        if name not in self.models:
            raise Refused(404, f"no model {name!r} is served{did_you_mean(name, list(self.models))}")
        return self.models[name]

    def _paths(self) -> str:
        known = " ".join(f"/{name}/predict" for name in self.models) or "(no model is served yet)"
        return f"there is POST {known} (and …/explain), GET …/live …/schema …/release / /status /metrics /openapi.json"

    # ── what is told ──────────────────────────────────────────────────────────────────────────────

    def _told(self, model: Model, what: str) -> Any:
        if what == "live":
            canary = model.wanted["canary"]
            return {
                "model": model.name,
                "live": model.wanted["live"],
                "canary": canary,
                "ready": model.is_ready,
            }
        if what in ("schema", "release"):
            release, _ = (model.live, False) if model.live else model.choose("")
            about = dict(release.about or {})
            schemas = about.pop("schemas")
            own = ("protocol", "seconds", "edges")  # what a replica tells the router only
            return schemas if what == "schema" else {k: v for k, v in about.items() if k not in own}
        raise Refused(404, self._paths())

    def _page(self, what: str, is_known: bool) -> tuple[int, Any]:
        if what == "healthz":
            return 200, {"status": "alive"}
        if what == "readyz":
            late = [name for name, model in self.models.items() if model.wanted["live"] and not model.is_ready]
            if not late:
                return 200, {"status": "ready"}
            return 503, {"status": "starting", **({"waits_for": late} if is_known else {})}
        if what == "status":
            models = {name: model.status() for name, model in self.models.items()}
            return 200, {"pid": os.getpid(), "since": self.since, "shed": self.shed, "models": models}
        if what == "openapi.json":
            return 200, document({name: m.live.about for name, m in self.models.items() if m.live and m.live.about})
        if what == "":
            live = {name: model.wanted["live"] for name, model in self.models.items()}
            return 200, {"evergreen": "serves models", "models": live, "paths": self._paths()}
        raise Refused(404, self._paths())

    def _metrics(self) -> bytes:
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Any]:
        """What Prometheus is told, made from the counters when it asks."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        of = ["model", "release"]
        requests = CounterMetricFamily("evergreen_requests", "Answers", labels=[*of, "code"])
        seconds = HistogramMetricFamily("evergreen_request_seconds", "From request to answer", labels=of)
        waiting = GaugeMetricFamily("evergreen_waiting_requests", "Asked and not answered yet", labels=of)
        unseen = CounterMetricFamily(
            "evergreen_unseen_categories", "Rows with a category the model never saw", labels=[*of, "feature"]
        )
        lost = CounterMetricFamily("evergreen_log_lost", "Answers that the prediction log could not keep", labels=of)
        for model in self.models.values():
            for release in model.releases.values():
                names = [model.name, release.candidate]
                for code, number in release.statuses.items():
                    requests.add_metric([*names, str(code)], number)
                at, buckets = 0, []
                for edge, number in zip([*EDGES_MS, float("inf")], release.latency, strict=True):
                    at += number
                    buckets.append(("+Inf" if edge == float("inf") else str(edge / 1000), at))
                seconds.add_metric(names, buckets, release.seconds)
                waiting.add_metric(names, release.waiting)
                statistics = release.statistics()
                lost.add_metric(names, statistics["lost"])
                for feature, number in statistics["unseen"].items():
                    unseen.add_metric([*names, feature], number)
        shed = CounterMetricFamily("evergreen_shed_requests", "Refused with 503", value=self.shed)
        yield from (requests, seconds, waiting, unseen, lost, shed)


def _keep_secret(path: Path, text: str) -> None:
    """Write a file that nobody else may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


async def _of_canary(release: Release, request: Asked) -> tuple[int, bytes]:
    """A canary's answer; 503 and the reason, or 504, where there is none."""
    begin = time.perf_counter()
    try:
        async with asyncio.timeout(CANARY_S):
            status, answer = await release.ask(*request, patient=False)
    except TimeoutError:
        status, answer = 504, b""
        release.kill_who_is_not_waited_for()
    except Unanswered as error:
        status, answer = 503, str(error).encode()
    if request[0] == replica.PREDICT:
        release.count(status, time.perf_counter() - begin)
    return status, answer


async def _in_turn(model: Model, release: Release, request: Asked) -> tuple[Release, int, bytes]:
    """Who answered, and what: a release, or who can instead of it. Nobody waits while another one can answer."""
    begin, left = time.perf_counter(), TURNS
    while True:
        left -= 1
        patient = left == 0 or model.another(release) is None
        try:
            status, answer = await release.ask(*request, patient=patient)
            break
        except Unanswered as error:
            status, answer = 503, str(error).encode()
            other = model.another(release)
            if left == 0 or isinstance(error, Deadly) or (other is None and patient):
                break
            release = other or release
    if request[0] == replica.PREDICT:
        release.count(status, time.perf_counter() - begin)
    return release, status, answer


async def _body(scope: Scope, receive: Receive, model: Model) -> bytes:
    """The body of a request, refused as soon as it is known to be too large, or too much beside the others."""
    assert model.serving is not None
    encoding = _header(scope, b"content-encoding").strip().lower()
    if not content_encoding.is_accepted(encoding):
        accepted = {"accept-encoding": content_encoding.ACCEPTED}
        raise Refused(415, f"a body in {encoding!r} cannot be read, but {content_encoding.ACCEPTED} can", **accepted)
    body = await _whole(scope, receive, model)
    if not content_encoding.is_gzip(encoding):
        return body
    try:
        plain = await asyncio.to_thread(content_encoding.gunzip, body, model.serving.max_bytes)
    except ValueError as error:
        raise Refused(400, str(error)) from None
    if plain is None:
        raise _too_large(model.serving.max_bytes)
    return plain


async def _whole(scope: Scope, receive: Receive, model: Model) -> bytes:
    assert model.serving is not None
    most = model.serving.max_bytes
    told = _header(scope, b"content-length")
    announced, size, parts = int(told) if told.isdigit() else 0, 0, []
    try:
        async with asyncio.timeout(BODY_S):
            while max(announced, size) <= most:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "the client left before its request was whole")
                parts.append(message["body"])
                size += len(parts[-1])
                model.take(len(parts[-1]))
                if size <= most and not message["more_body"]:
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise Refused(408, f"the body did not come within {BODY_S:g} s", connection="close") from None
    finally:
        model.coming -= size
    raise _too_large(most)


def _too_large(most: int) -> Refused:
    return Refused(413, f"the body is larger than {most} bytes (serving.max_bytes)")


def main() -> None:
    """Serve on the socket that EVERGREEN_LISTENING_FD names, or on EVERGREEN_HOST and EVERGREEN_PORT."""
    import gc

    import uvicorn

    inherited = os.environ.get("EVERGREEN_LISTENING_FD")
    if inherited:
        listening = socket.socket(fileno=int(inherited))
    else:
        host, port = os.environ["EVERGREEN_HOST"], int(os.environ["EVERGREEN_PORT"])
        listening = socket.create_server((host, port), backlog=2048)
    config = uvicorn.Config(
        Router(), loop="uvloop", http=Connection, lifespan="on", access_log=False, log_level="warning",
        server_header=False, date_header=False, proxy_headers=False, ws="none", timeout_keep_alive=75,
        timeout_graceful_shutdown=int(DRAIN_S),
    )  # fmt: skip
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(log_rotation.Seldom())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
