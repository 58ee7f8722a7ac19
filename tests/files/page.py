# ruff: noqa: E501 - lines of a page
"""`python -m tests.files.page`: docs/reference/files.md, from the files that tests/files/test_files.py reads."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.files.meant import ABOUT, DECLARED, GIVEN
from tests.files.writers import CSV, PARQUET, WRITERS, Writer

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "files.md"
SIGNS = {"as meant": "✓", "otherwise": "≠", "refused": "✗"}

HEAD = """# Files as other programs write them

Written by `python -m tests.files.page` from real files of each program (`tests/files/`, made by `make_files.py` and
`make_files.sql` there; Excel's by hand, byte by byte, as it writes them). Each cell is tried by `tests/files/test_files.py`.

A table is a `.csv`, a `.tsv` or a `.parquet`; one that is packed (`.csv.gz`, `.zip`) is refused, with what to do. Ingest, training and
batch scoring read a file with the same code (`tasks/tables/table_files.py`). **The declared type decides.** A
conversion that loses nothing is made; every other one is refused, with column, row, the value in the file and what it would
become. Nothing is guessed: what a text means that a type does not say is declared in the suite.

| sign | |
| --- | --- |
| ✓ | read as it was meant |
| ≠ | read as it stands in the file, which does not say what was meant (why: below the table) |
| ✗ | refused (why: below the table) |
| – | the program, or this format of it, does not have it |

## What a suite can say

```yaml
nulls: ["", "NA"]            # texts that mean «missing»; in a text column only where they are not in quotes
csv:                         # only what is otherwise than here
  delimiter: ","             # or ";", "\\t", "|", …; in a .tsv it is "\\t" without being declared
  quote: '"'                 # null: there are no quotation marks
  escape: null               # "\\\\": a quotation mark is written as \\"; with `quote: null`, a tab as \\t, a line break as \\n
  header: true               # false: the columns are those of `columns`, in order
  encoding: utf-8            # cp1252, utf-16, … (a byte order mark is taken off)
  decimal: "."               # or ","
  thousands: null            # ",", ".", " ", "'"
  dates: []                  # ISO 8601; or in the words of strptime: ["%d.%m.%Y %H:%M", "%d.%m.%Y"], the first that fits
  true_values: []            # beside true, t, 1 in any case
  false_values: []           # beside false, f, 0
  quoted_nulls: false        # true: a text of `nulls` means «missing» in a text column also in quotes
  verbatim: []               # text columns whose values may all end in «.0»
```

| declared | takes | refuses |
| --- | --- | --- |
| `int64`, `Int64` | whole numbers of any width, floats and decimals that are whole (2.0, below 2⁵³), texts as 7, +7, 007, 2.0, 1e5 | 1.5, beyond 64 bits, 1.2E+11 (Excel: digits are gone), truth values, dates; in `int64`, a missing value |
| `float64` | floats, whole numbers and decimals that a float64 holds, texts as 1.5, 1e-7, NaN (missing), inf | whole numbers that it does not hold (2⁵³ + 1), 1e400, truth values, dates |
| `str` | texts, whole numbers (49), floats that are whole (49.0 is the code 49), days, times of day, UUIDs, UTF-8 bytes | other floats and decimals, truth values, timestamps, lists; a text column whose every value ends in «.0» |
| `bool`, `boolean` | truth values, 0 and 1, texts as true, t, 1 | other numbers and texts; in `bool`, a missing value |
| `datetime64[us]` | timestamps without a zone, days (midnight), texts in ISO 8601 | a zone (08:00 in Berlin is not 06:00), digits below a microsecond, counts of seconds |
| `datetime64[us, UTC]` | timestamps with a zone (INT96 of Spark too), texts in ISO 8601 with one | what has no zone, days, counts of seconds |

Whatever its type, a column without a single value is missing throughout. In a column that is not text, an empty field is missing,
also in quotes. A dictionary (category) is what its values are. In Parquet, pandas' index is a column at the place that the
suite gives it, unless it has no name. Row 1 is the first below the names.
"""


def text(folder: Path) -> str:
    """The page."""
    return "\n".join([HEAD, *_table("Parquet", PARQUET, folder), *_table("CSV", CSV, folder), *_declared()]) + "\n"


def _table(title: str, writers: list[Writer], folder: Path) -> Iterator[str]:
    notes: dict[str, int] = {}
    yield f"## {title}"
    yield ""
    yield f"| | declared | {' | '.join(writer.name.replace('|', chr(92) + '|') for writer in writers)} |"
    yield f"| --- | --- |{' :-: |' * len(writers)}"
    for column in GIVEN:
        cells = [_cell(writer, column, folder, notes) for writer in writers]
        yield f"| {ABOUT[column]} | `{DECLARED[column]}` | {' | '.join(cells)} |"
    yield ""
    yield from (f"{number}. {note}" for note, number in notes.items())
    yield ""


def _cell(writer: Writer, column: str, folder: Path, notes: dict[str, int]) -> str:
    if column not in writer.columns(folder):
        return "–"
    outcome = writer.outcome(column, folder)
    why = writer.otherwise.get(column)
    if outcome == "refused":
        why = f"`{str(writer.read(column, folder)).replace('|', '')}`"
    return SIGNS[outcome] + (f" {notes.setdefault(why, len(notes) + 1)}" if why else "")


def _declared() -> Iterator[str]:
    yield "## What the suite says of these files"
    yield ""
    yield "| file of | `nulls`, `csv` |"
    yield "| --- | --- |"
    for writer in WRITERS:
        if writer.suite:
            said = "; ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in writer.suite.items())
            yield f"| {writer.name} | `{said}` |"
    yield ""
    yield "Every other file needs nothing."


def main() -> None:
    """Write it."""
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(text(Path(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
