"""Errors of a release. The whole tree of errors is in tasks/ground/errors.py."""

from __future__ import annotations


class EvergreenError(Exception):
    """The root. The command line prints its text alone; everything else is a defect and shows a traceback."""


class WorldError(EvergreenError):
    """The world is not as it should be."""


class ModelFileRefused(WorldError):
    """A model file was changed after packaging, or holds a type that is not on the reviewed list."""


def did_you_mean(word: str, choices: list[str]) -> str:
    """A hint to append to an error: `; did you mean 'margin'?`, or all choices, or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(choices))}" if choices else ""
