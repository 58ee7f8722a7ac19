"""Cross-origin requests: pages of the sites in EVERGREEN_ORIGINS may ask the router from a browser; by default none."""

from __future__ import annotations

import re

from tasks.ground.errors import Mistake

Headers = list[tuple[bytes, bytes]]

REQUEST_HEADERS = b"authorization, x-api-key, content-type, content-encoding, evergreen-key, x-request-id"
REQUEST_HEADERS += b", inference-header-content-length"
ANSWER_HEADERS = b"evergreen-release, x-request-id, retry-after, www-authenticate, inference-header-content-length"
EXPOSED = (b"access-control-expose-headers", ANSWER_HEADERS)
VARY = (b"vary", b"origin")
DAY_S = b"86400"


class Origins:
    """The sites whose pages may ask: origins (`https://shop.example`) with commas between them, or `*`: all."""

    def __init__(self, allowed: str = "") -> None:
        self._allowed = {origin.strip().rstrip("/").lower() for origin in allowed.split(",") if origin.strip()}
        for origin in self._allowed - {"*"}:
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
                message = f"EVERGREEN_ORIGINS: {origin!r} is no origin: scheme and host, such as https://shop.example"
                raise Mistake(message)

    @property
    def allow_any(self) -> bool:
        """Whether pages of any site may ask."""
        return bool(self._allowed)

    def headers(self, origin: str) -> Headers:
        """What every answer to a page carries."""
        if "*" in self._allowed:
            return [(b"access-control-allow-origin", b"*"), EXPOSED]
        if origin.lower() in self._allowed:
            return [(b"access-control-allow-origin", origin.encode("latin-1")), EXPOSED, VARY]
        return [VARY] if self._allowed else []  # a cache must not give one site the answer of another

    def preflight(self, origin: str, methods: str) -> Headers:
        """The answer to a browser that asks before its page does."""
        answer = self.headers(origin)
        if EXPOSED in answer:
            answer += [
                (b"access-control-allow-methods", methods.encode()),
                (b"access-control-allow-headers", REQUEST_HEADERS),
                (b"access-control-max-age", DAY_S),
            ]
        return answer
