"""Measures: what is watched of a feature that is neither a category nor a number, as plain columns made of it.

| type | its columns |
| --- | --- |
| boolean | itself, as a category of `true` and `false` |
| datetime | how many days it lies after the row's own time; where rows have none, after 1970 |
| text | length; script; unknown words; surprise; three topics |
| vector | norm; mean; three projections |

Of texts nothing is kept but hashes of words, and they are compared by means: *unknown words* is the share of a text's
words that training did not have; *surprise* how many bits its words take on average, by their frequencies in training;
a *topic* the mean of a sign that each word has by its hash, so that other words give another mean whether they are
known or not. A training text is held against words of other weeks only (`Vocabulary`), as a text of tomorrow will be:
held against itself it would know every word, and all later days would look strange. What follows is a number per row,
of which the day has a mean: the same test as of every other column decides (tasks/monitoring/drift).
"""

from __future__ import annotations

import base64
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.ground.errors import ParamsError
from tasks.runtime.feature_types import vector_columns

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

OF_TYPE = {
    "boolean": ("truth",),
    "datetime": ("lead", "day"),
    "text": ("length", "script", "unknown words", "surprise", "topic 1", "topic 2", "topic 3"),
    "vector": ("norm", "mean", "projection 1", "projection 2", "projection 3"),
}
"""Type → its measures."""

CATEGORIES = ("truth", "script")
"""The measures that are categories; the others are numbers."""

UNITS = {"lead": "days", "day": "days", "length": "characters", "surprise": "bits"}

FEW_DAYS = 14
"""With fewer days, texts are held against words of other texts, not of other weeks."""

READ = 5_000
"""Characters of a text whose words are looked at."""

AT_ONCE = 20_000
"""Texts whose words are in memory."""

_BITS, _BUCKETS = 18, 12
"""A word is one of 2^18 known or unknown ones, and one of 2^12 whose frequencies are known."""

_WITHOUT_SPACES = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Scripts that do not part words by blanks: a character is a word there."""

_WORD = re.compile(rf"[{_WITHOUT_SPACES}]|[^\W{_WITHOUT_SPACES}]+")


def names(feature: str, type_: str, *, has_time: bool = True) -> dict[str, str]:
    """The columns that are watched of a feature → their measures; of a category or a number none."""
    measures = OF_TYPE.get(type_, ())
    if type_ == "boolean":
        return {feature: "truth"}
    if type_ == "datetime":
        return {f"{feature}: days after time": "lead"} if has_time else {f"{feature}: day": "day"}
    return {f"{feature}: {measure}": measure for measure in measures}


def refuse_shared_names(features: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse a feature that is called as a measure of another one is.

    Raises:
        ParamsError: both would be one column to the monitor.
    """
    for name, feature in features.items():
        for measure in names(name, feature["type"]).keys() | names(name, feature["type"], has_time=False).keys():
            if measure != name and measure in features:
                raise ParamsError(
                    f"{where}: the feature {measure!r} is called as what is watched of the {feature['type']} {name!r}: "
                    f"give it another name"
                )


@dataclass
class FeatureMeasures:
    """The measures of one feature in some rows, each computed once."""

    feature: str
    rows: Any
    """A DataFrame as `prepare` writes it, or a table of the prediction log."""
    days: Ints
    """Of each row, counted from 1970."""
    length: int = 0
    """Of a vector."""
    vocabulary: Vocabulary | None = None
    """Of a text."""
    _kept: dict[str, Any] = field(default_factory=dict)

    @property
    def is_there(self) -> bool:
        """Whether the rows have the feature."""
        columns = self.rows.columns if hasattr(self.rows, "iloc") else self.rows.column_names
        return self.feature in columns or (self.length > 0 and vector_columns(self.feature, 1)[0] in columns)

    def values(self, measure: str) -> pa.Array:
        """A measure's value of each row: texts or float64, null where the feature is missing."""
        import pyarrow as pa

        if measure == "truth":
            return _truths(self._column())
        if measure in ("lead", "day"):
            return pa.array(self._days_of_times(measure), from_pandas=True)
        if measure in OF_TYPE["vector"]:
            self._kept = self._kept or dict(_of_vectors(self._matrix()))
        else:
            self._kept = self._kept or self._of_texts()
        return pa.array(self._kept[measure], from_pandas=True)

    def _column(self) -> Any:
        import pyarrow as pa

        values = self.rows[self.feature]
        return pa.Array.from_pandas(values) if hasattr(values, "iloc") else values.combine_chunks()

    def _days_of_times(self, measure: str) -> Floats:
        import pandas as pd

        values = self._column().to_pandas()
        moments = pd.to_datetime(values, format="ISO8601", errors="coerce") if values.dtype.kind != "M" else values
        days: Floats = moments.to_numpy().astype("datetime64[us]").astype(np.float64) / 86_400e6
        days[moments.isna().to_numpy()] = np.nan
        if measure == "day":
            return days
        of_rows = np.asarray(self.rows["time"]).astype("datetime64[us]").astype(np.float64) / 86_400e6
        return np.asarray(days - of_rows)

    def _matrix(self) -> Floats:
        if hasattr(self.rows, "iloc"):
            return np.asarray(self.rows[vector_columns(self.feature, self.length)].to_numpy(dtype=np.float64))
        lists = self._column().to_pylist()
        matrix = np.full((len(lists), self.length), np.nan)
        for row, numbers in enumerate(lists):
            if isinstance(numbers, list) and len(numbers) == self.length:
                matrix[row] = numbers
        return matrix

    def _of_texts(self) -> dict[str, npt.NDArray[Any]]:
        parts = [dict(_of_texts(texts, days, self.vocabulary)) for texts, days in _in_parts(self._column(), self.days)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _in_parts(values: pa.Array, days: Ints) -> Iterator[tuple[list[str | None], Ints]]:
    """Some texts at a time, with their days: as Python has them, they and their words take ten times the room."""
    for begin in range(0, max(len(values), 1), AT_ONCE):
        yield values.slice(begin, AT_ONCE).to_pylist(), days[begin : begin + AT_ONCE]


def _truths(values: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(values.type):  # of a log in which it was something else as well
        values = pc.equal(values, "true")
    return pc.if_else(values.cast("float64").cast("bool"), pa.scalar("true"), pa.scalar("false"))


# ── vectors ───────────────────────────────────────────────────────────────────────────────────────


def _of_vectors(matrix: Floats) -> Iterator[tuple[str, Floats]]:
    yield "norm", np.sqrt((matrix**2).sum(axis=1))
    yield "mean", matrix.mean(axis=1)
    for number in (1, 2, 3):
        signs = np.array([_sign(zlib.crc32(b"%d" % at), number) for at in range(matrix.shape[1])])
        yield f"projection {number}", matrix @ signs / np.sqrt(len(signs))


def _sign(hashed: Any, number: int) -> Any:
    """+1 or −1 by a bit that tells neither buckets nor known words."""
    return ((hashed >> (_BITS + number)) & 1) * 2.0 - 1.0


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Vocabulary:
    """Which words training had and how often, as hashes, in two halves: of even weeks, and of odd ones.

    A text of one half is held against the words of the other, in training and later alike: so days of training and
    days to come are drawn alike as long as nothing changes.
    """

    by_week: bool
    has_word: npt.NDArray[np.bool_]
    """(2, 2^18)"""
    bits: npt.NDArray[np.uint8]
    """(2, 2^12): −log2 of each bucket's frequency, in sixteenths."""

    @staticmethod
    def of(values: pa.Array, days: Ints) -> Vocabulary:
        """The vocabulary of the training rows."""
        by_week = len(np.unique(days)) >= FEW_DAYS
        has_word, counts = np.zeros((2, 1 << _BITS), dtype=bool), np.zeros((2, 1 << _BUCKETS))
        for texts, of_days in _in_parts(values, days):
            hashes, row = _words(texts)
            half = _halves(texts, of_days, by_week=by_week)[row]
            for number in (0, 1):
                own = hashes[half == number]
                has_word[number, own & ((1 << _BITS) - 1)] = True
                counts[number] += np.bincount(own & ((1 << _BUCKETS) - 1), minlength=1 << _BUCKETS)
        shares = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
        return Vocabulary(by_week, has_word, np.minimum(np.rint(-16 * np.log2(shares)), 255).astype(np.uint8))

    def __str__(self) -> str:
        """As text, for a profile."""
        content = np.packbits(self.has_word).tobytes() + self.bits.tobytes()
        return f"{int(self.by_week)}{base64.b85encode(zlib.compress(content, 9)).decode()}"

    @staticmethod
    @lru_cache(maxsize=8)
    def read(text: str) -> Vocabulary:
        """What `str` gave."""
        content, size = zlib.decompress(base64.b85decode(text[1:])), (2 << _BITS) // 8
        has_word = np.unpackbits(np.frombuffer(content[:size], dtype=np.uint8)).astype(bool).reshape(2, -1)
        return Vocabulary(text[0] == "1", has_word, np.frombuffer(content[size:], dtype=np.uint8).reshape(2, -1))


def _halves(texts: list[str | None], days: Ints, *, by_week: bool) -> Ints:
    if by_week:
        return (days + 3) // 7 % 2  # weeks begin on Monday: 1 January 1970 was a Thursday
    return np.array([zlib.crc32((text or "").encode()) % 2 for text in texts], dtype=np.int64)


def _of_texts(
    texts: list[str | None], days: Ints, vocabulary: Vocabulary | None
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    is_missing = np.array([text is None for text in texts], dtype=bool)

    def of_present(values: Floats) -> Floats:
        return np.where(is_missing, np.nan, values)

    yield "length", of_present(np.array([len(text or "") for text in texts], dtype=np.float64))
    yield "script", np.array([None if text is None else _script(text) for text in texts], dtype=object)
    assert vocabulary is not None  # of a text there is one
    hashes, row = _words(texts)
    count = np.maximum(np.bincount(row, minlength=len(texts)), 1)

    def mean(values: Any) -> Floats:
        return of_present(np.bincount(row, values, minlength=len(texts)) / count)

    against = 1 - _halves(texts, days, by_week=vocabulary.by_week)[row]
    yield "unknown words", mean(~vocabulary.has_word[against, hashes & ((1 << _BITS) - 1)])
    yield "surprise", mean(vocabulary.bits[against, hashes & ((1 << _BUCKETS) - 1)] / 16)
    for number in (1, 2, 3):
        yield f"topic {number}", mean(_sign(hashes, number))


def _words(texts: list[str | None]) -> tuple[Ints, Ints]:
    """The hash of each word, and the text that it is in. A word with a digit is any number."""
    hashes = [[_hash(word) for word in _WORD.findall(text[:READ].lower())] if text else [] for text in texts]
    lengths = np.array([len(each) for each in hashes], dtype=np.int64)
    flat = np.fromiter((value for each in hashes for value in each), dtype=np.int64, count=int(lengths.sum()))
    return flat, np.repeat(np.arange(len(texts)), lengths)


@lru_cache(maxsize=200_000)
def _hash(word: str) -> int:
    return zlib.crc32(b"0" if any(map(str.isdigit, word)) else word.encode("utf-8", "surrogatepass"))


def _script(text: str) -> str:
    """The script of most of its first letters, as Unicode calls it: latin, cyrillic, cjk."""
    if text.isascii():
        return "latin" if any(map(str.isalpha, text)) else "none"
    scripts = [script for sign in text[:300] if (script := _script_of(sign))]
    return max(sorted(set(scripts)), key=scripts.count) if scripts else "none"


@cache
def _script_of(sign: str) -> str:
    return unicodedata.name(sign, "").split(" ")[0].split("-")[0].lower() if sign.isalpha() else ""


def entries(
    frame: pd.DataFrame, feature: str, described: Mapping[str, Any], days: Ints, entry_of: Any
) -> tuple[dict[str, dict[str, Any]], str | None]:
    """The reference profile's entries of one feature, and its vocabulary where it is a text.

    Args:
        frame: training rows.
        feature: its name.
        described: as params.Model.described has it.
        days: of the rows.
        entry_of: category or number → what makes an entry of a column.
    """
    import pyarrow as pa

    vocabulary = None
    if described["type"] == "text":
        vocabulary = Vocabulary.of(pa.Array.from_pandas(frame[feature]), days)
    measured = FeatureMeasures(feature, frame, days, described.get("length") or 0, vocabulary)
    has_time = "time" in frame and bool(frame["time"].notna().all())
    made = {}
    for name, measure in names(feature, described["type"], has_time=has_time).items():
        kind = "category" if measure in CATEGORIES else "number"
        values = measured.values(measure).to_pandas()
        made[name] = {**entry_of[kind](values), "of": feature, "measure": measure}
        if described["type"] == "vector":
            made[name]["length"] = described["length"]
    return made, None if vocabulary is None else str(vocabulary)
