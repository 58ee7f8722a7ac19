"""Words of messages."""

from __future__ import annotations

from tasks.ground import words


def test_one_is_no_plural() -> None:
    """With thousands parted, and a plural of its own where there is one."""
    assert words.many(1, "partition") == "1 partition"
    assert words.many(1200, "row") == "1,200 rows"
    assert words.many(0, "entry", "entries") == "0 entries"


def test_a_long_list_ends() -> None:
    """And says how much is left out."""
    assert words.listed("abc", 3) == "a, b, c"
    assert words.listed("abcde", 3) == "a, b, c and 2 more"
    assert words.listed("abcd", 3, "partition") == "a, b, c and 1 more partition"


def test_what_a_library_raised_is_one_line() -> None:
    """However it is laid out."""
    assert words.one_line(ValueError("no\n  such\tthing")) == "no such thing"
    assert words.one_line("a long text", 6) == "a long"
