"""Addresses of servers that a setting names: read strictly, and shown without what is secret in them.

Who writes a password with an `@` or a `/` into an address has written another address, and whatever then fails says a
part of that password. So an address that can be read in two ways is refused before anything connects, and is not shown.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tasks.ground.errors import Mistake, SourceUnavailable

PORTS = {"postgresql": 5432, "redis": 6379, "rediss": 6379, "http": 80, "https": 443}
"""By the scheme without its driver."""

CREDENTIALS = re.compile(r"://\S*@")


@dataclass(frozen=True)
class Address:
    """Where a setting says that a server is."""

    setting: str
    scheme: str  # without a driver
    hosts: tuple[tuple[str, int], ...]
    path: str
    url: str = field(repr=False)  # may hold a password

    @property
    def shown(self) -> str:
        """Without user, password and options."""
        where = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.scheme}://{where}{self.path}"

    @property
    def plain(self) -> str:
        """With the password, without a driver: as PostgreSQL's own clients take it."""
        return f"{self.scheme}://{self.url.partition('://')[2]}"

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine's loopback."""
        return all(host in ("127.0.0.1", "localhost", "::1") for host, _ in self.hosts)

    def refuse_silence(self, todo: str, seconds: float = 3) -> None:
        """Connect to one of its hosts.

        Raises:
            SourceUnavailable: none listens there; it says what to do.
        """
        why = ""
        for where in self.hosts:
            try:
                socket.create_connection(where, timeout=seconds).close()
            except OSError as error:
                why = error.strerror or str(error) or type(error).__name__
            else:
                return
        raise SourceUnavailable(f"{self.setting}: nobody answers at {self.shown} ({why}). {todo}")


def read(setting: str, *schemes: str) -> Address:
    """The address that an environment variable holds; `schemes` are those it may have, without a driver.

    Raises:
        Mistake: it is no such address, or could be read in two ways. It is not shown.
    """
    text = os.environ[setting]
    scheme, _, rest = text.partition("://")
    base = scheme.partition("+")[0]
    base = "postgresql" if base == "postgres" else base  # PostgreSQL's own clients take both
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    credentials, _, places = authority.rpartition("@")
    try:
        path = urlsplit(text).path
        hosts = tuple(_place(place, PORTS[base]) for place in places.split(",")) if base in schemes else ()
    except (ValueError, KeyError):
        hosts = ()
    if not hosts or "@" in credentials + rest[len(authority) :] or re.search(r"%(?![0-9A-Fa-f]{2})|\s", text):
        raise Mistake(
            f"{setting} is no address such as {schemes[0]}://<user>:<password>@<host>:{PORTS[schemes[0]]}/<name>. In a "
            f"password, @ is written %40, / is %2F, : is %3A, ? is %3F, # is %23, and % is %25"
        )
    return Address(setting, base, hosts, path, text)


def _place(text: str, otherwise: int) -> tuple[str, int]:
    url = urlsplit(f"//{text}")
    if not url.hostname or not re.fullmatch(r"[A-Za-z0-9_.:-]+", url.hostname):
        raise ValueError
    return url.hostname, url.port or otherwise


def masked(text: str, url: str = "") -> str:
    """A text without the credentials of the URLs in it, nor those of this one, nor parts of them."""
    for found in CREDENTIALS.findall(url):
        credentials = found[3:-1]
        for secret in (credentials, credentials.partition(":")[2], *re.split(r"[:@/?#]", credentials)[1:]):
            if len(secret) > 3 or secret in (credentials, credentials.partition(":")[2]):
                text = text.replace(secret, "***") if secret else text
    return CREDENTIALS.sub("://***@", text)
