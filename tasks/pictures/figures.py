"""Figures of many points, as PNG: one style, and colours that people with a colour vision deficiency tell apart.

Drawn with matplotlib's Figure alone, no pyplot: nothing global is left behind, and equal input gives equal bytes.
Colours are those of Okabe and Ito (2008).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
INK, GREY, PALE = "#222222", "#6B6B6B", "#E3E3E3"

STYLE: dict[str, Any] = {
    "text.parse_math": False,  # a class may be named «$0%$»
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": PALE,
}


def styled(changes: Mapping[str, Any]) -> AbstractContextManager[None]:
    """While this lasts, figures have STYLE with these changes, whatever a person's matplotlibrc says."""
    return mpl.style.context(["default", {**STYLE, **changes}])


def png(figure: Figure) -> bytes:
    """The bytes of a figure, without a trace of when or with what it was drawn."""
    stream = io.BytesIO()
    with warnings.catch_warnings():  # a sign that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(stream, format="png", metadata={"Software": None}, pil_kwargs={"compress_level": 4})
    return stream.getvalue()
