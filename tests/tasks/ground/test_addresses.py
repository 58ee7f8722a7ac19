"""An address that a setting names is read strictly; neither it nor an error about it shows what is secret."""

from __future__ import annotations

import pytest

from tasks.ground import addresses, http
from tasks.ground.errors import Mistake, SourceUnavailable

SETTING = "PREFECT_REDIS_MESSAGING_URL"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://cache.example/0", "redis://cache.example:6379/0"),
        ("rediss://:s%40cret@cache.example:6380/0?ssl_cert_reqs=none", "rediss://cache.example:6380/0"),
        ("postgresql+asyncpg://me:secret@one,two:5433/prefect", "postgresql://one:5432,two:5433/prefect"),
        ("postgres://db.example/evergreen", "postgresql://db.example:5432/evergreen"),
        ("https://prefect.example/api", "https://prefect.example:443/api"),
    ],
)
def test_an_address_is_shown_without_its_user(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    """Nor its options; with the port that it means."""
    monkeypatch.setenv(SETTING, text)
    address = addresses.read(SETTING, *addresses.PORTS)
    assert address.shown == shown
    assert "cret" not in repr(address)


@pytest.mark.parametrize(
    "text",
    [
        *("redis://me:sec@ret@host/0", "redis://me:sec/ret@host/0", "redis://me:12/sec@host", "redis://me:se#c@host"),
        *("redis://me:se?c@host", "redis://me:se%zc@host", "redis://me:se c@host", "redis://me:sec:ret/0"),
        *("secret", "redis://", "redis://secret:port/", "gopher://me:secret@host/0", "host=here password=secret"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_unseen(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The message says how a password is written."""
    monkeypatch.setenv(SETTING, text)
    with pytest.raises(Mistake, match=r"PREFECT_REDIS_MESSAGING_URL is no address such as redis://.*%40") as error:
        addresses.read(SETTING, "redis", "rediss")
    assert "sec" not in str(error.value)


def test_who_does_not_answer_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with the password."""
    port = http.free_port()
    monkeypatch.setenv(SETTING, f"redis://me:secret@127.0.0.1:{port}/0")
    address = addresses.read(SETTING, "redis")
    with pytest.raises(SourceUnavailable, match=rf"answers at redis://127.0.0.1:{port}/0 \(.*\). Start it") as error:
        address.refuse_silence("Start it")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        ("s3://key:secret@host/bucket", "", "s3://***@host/bucket"),
        ("postgresql://me:p@ss@host/db", "", "postgresql://***@host/db"),
        ("postgresql://me:p/ss@host/db", "", "postgresql://***@host/db"),
        ("403 for key:secret", "s3://key:secret@host/bucket", "403 for ***"),
        ("wrong password secret", "s3://key:secret@host/bucket", "wrong password ***"),
        ("no such host cret@host", "s3://key:se/cret@host/bucket", "no such host ***@host"),
        ("no address at all", "s3://@host/bucket", "no address at all"),
        ("var/landing", "var/landing", "var/landing"),
    ],
)
def test_credentials_are_masked(text: str, url: str, shown: str) -> None:
    """Those of addresses in a text, and those of the address that it is about, also in parts."""
    assert addresses.masked(text, url) == shown
