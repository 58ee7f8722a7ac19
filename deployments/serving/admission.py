"""Admission to the router: every request, until API keys are needed; then those with a key, and the operator's.

A key comes as `authorization: Bearer <key>` or `x-api-key: <key>`, whatever a proxy adds. A browser, which can send
neither, is asked for a password by HTTP Basic: the key, with any name; for pages only, as a browser sends it along with
whatever another site lets it send.
"""

from __future__ import annotations

import binascii
import hmac
import os
import secrets
from base64 import b64decode
from collections.abc import Iterator
from itertools import islice
from typing import Any

from deployments.serving import api_keys
from tasks.ground import paths
from tasks.ground.errors import Mistake, did_you_mean

ALWAYS = frozenset(
    {"healthz", "readyz", "v2/health/live", "v2/health/ready"}
)  # open to probes, keys or not; they name nothing
PAGES = frozenset({"status", "metrics", "openapi.json"})  # what EVERGREEN_OPEN_PAGES may open to all beside keys
MOST_TRIED = 8  # credentials of one request that are tried


class Admission:
    """Decides which requests are answered: some pages (of PAGES, by name, with commas between them) without a key.

    The operator's token, which is as good as a key, is made here.
    """

    def __init__(self, open_pages: str = "") -> None:
        self._keys, self._token = api_keys.Keys(), secrets.token_urlsafe(32)
        self._open = {name.strip().strip("/") for name in open_pages.split(",") if name.strip()}
        for name in self._open - PAGES:
            raise Mistake(
                f"EVERGREEN_OPEN_PAGES: there is no page {name!r}{did_you_mean(name, sorted(PAGES))}. "
                f"Those that may be opened: {', '.join(sorted(PAGES))}"
            )

    def keep_token(self) -> None:
        """Write the operator's token to its file, for its owner alone, unless it is there."""
        path = paths.router_token()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(self._token)

    def is_open(self, page: str) -> bool:
        """Whether a page is answered without a key."""
        return page in ALWAYS or page in self._open

    def admits(self, scope: dict[str, Any]) -> bool:
        """Whether a request is answered.

        Raises:
            OSError, ValueError: the keys cannot be read.
        """
        if not self._keys.are_required():
            return True
        return any(self._keys.admit(given) or self._is_token(given) for given in _credentials(scope))

    def is_from_operator(self, scope: dict[str, Any]) -> bool:
        """Whether a request has the operator's token."""
        return any(map(self._is_token, _credentials(scope)))

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token.encode())


def _credentials(scope: dict[str, Any]) -> list[str]:
    return list(islice(_each_credential(scope), MOST_TRIED))


def _each_credential(scope: dict[str, Any]) -> Iterator[str]:
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
