"""Which pages of other sites may ask the router through somebody's browser: those of EVERGREEN_ORIGINS, first none."""

from __future__ import annotations

import re

from tasks.ground.errors import Mistake

Headers = list[tuple[bytes, bytes]]

ASKED_WITH = b"authorization, x-api-key, content-type, content-encoding, evergreen-key, x-request-id"
SHOWN = b"evergreen-release, x-request-id, retry-after, www-authenticate"
DAY = b"86400"


class Origins:
    """The sites whose pages may ask.

    Args:
        allowed: origins (`https://shop.example`), with commas between them, or `*`: each one.

    Raises:
        Mistake: this is no origin.
    """

    def __init__(self, allowed: str = "") -> None:
        self._allowed = {one.strip().rstrip("/").lower() for one in allowed.split(",") if one.strip()}
        for one in self._allowed - {"*"}:
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", one):
                raise Mistake(f"EVERGREEN_ORIGINS: {one!r} is no origin: scheme and host, such as https://shop.example")

    @property
    def are_any(self) -> bool:
        """Whether any site's pages may ask."""
        return bool(self._allowed)

    def headers(self, origin: str) -> Headers:
        """What every answer to a page carries; nothing where none may ask."""
        if not self._allowed:
            return []
        if "*" in self._allowed:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", SHOWN)]
        vary = (b"vary", b"origin")  # also for who is not allowed: a cache must not give one the answer of another
        if origin.lower() not in self._allowed:
            return [vary]
        allowed = (b"access-control-allow-origin", origin.encode("latin-1"))
        return [allowed, (b"access-control-expose-headers", SHOWN), vary]

    def preflight(self, origin: str, methods: str) -> Headers:
        """What a browser is told that asks before the page does."""
        answer = self.headers(origin)
        if not any(name == b"access-control-allow-origin" for name, _ in answer):
            return answer
        may = [(b"access-control-allow-methods", methods.encode()), (b"access-control-allow-headers", ASKED_WITH)]
        return [*answer, *may, (b"access-control-max-age", DAY)]
