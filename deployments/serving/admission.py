"""Who is admitted by the router: everybody, until API keys are needed; then who has one, and the operator.

A key comes as `authorization: Bearer <key>` or `x-api-key: <key>`, whatever a proxy puts beside it. A browser, which
can send neither, is asked for a password by HTTP Basic: the key, with any name; for pages only, as a browser sends it
along with whatever another site lets it send.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

from deployments.serving import api_keys
from tasks.ground.errors import Mistake, did_you_mean

ALWAYS = frozenset({"healthz", "readyz"})
"""What probes ask is told to everybody, keys or not; it names nothing."""

PAGES = frozenset({"status", "metrics", "openapi.json"})
"""What may be opened to everybody beside keys."""

MOST = 8
"""Credentials of one request that are tried."""


class Admission:
    """Says of a request whether it is answered.

    Args:
        accepted: the API keys.
        token: the operator's, which is as good as a key.
        open_pages: names out of PAGES, with commas between them: told to everybody, keys or not.

    Raises:
        Mistake: there is no such page.
    """

    def __init__(self, accepted: api_keys.Keys, token: str, open_pages: str = "") -> None:
        self._keys, self._token = accepted, token
        self._open = {name.strip().strip("/") for name in open_pages.split(",") if name.strip()}
        for name in self._open - PAGES:
            raise Mistake(
                f"EVERGREEN_OPEN_PAGES: there is no page {name!r}{did_you_mean(name, sorted(PAGES))}. "
                f"Those that may be opened: {', '.join(sorted(PAGES))}"
            )

    def admits(self, scope: dict[str, Any]) -> bool:
        """Whether a request is answered, whatever it asks for.

        Raises:
            OSError, ValueError: the keys cannot be read.
        """
        if not self._keys.are_required():
            return True
        return any(self._keys.admit(given) or self.is_operator(given) for given in _credentials(scope))

    def is_open(self, page: str) -> bool:
        """Whether a page is told to everybody."""
        return page in ALWAYS or page in self._open

    def is_operators(self, scope: dict[str, Any]) -> bool:
        """Whether the operator asks."""
        return any(self.is_operator(given) for given in _credentials(scope))

    def is_operator(self, given: str) -> bool:
        """Whether this is the operator's token."""
        return hmac.compare_digest(given.encode(), self._token.encode())


def _credentials(scope: dict[str, Any]) -> list[str]:
    return [given for given, _ in zip(_given(scope), range(MOST), strict=False)]


def _given(scope: dict[str, Any]) -> Iterator[str]:
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            yield value.decode("latin-1").strip()
        elif name == b"authorization":
            scheme, _, rest = value.decode("latin-1").strip().partition(" ")
            if scheme.lower() == "bearer":
                yield rest.strip()
            elif scheme.lower() == "basic" and scope["method"] in ("GET", "HEAD"):
                yield _password(rest)


def _password(encoded: str) -> str:
    """Of a name and a password, as HTTP Basic has them."""
    try:
        return b64decode(encoded.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
