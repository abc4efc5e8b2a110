"""The paper on which the report draws."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

DPI = 110


@contextmanager
def ready_to_draw() -> Iterator[None]:
    """With what draws imported, once for all processes."""
    # now, while nothing is held: an exception in it goes round in a circle with the frames of all who wait for it, and
    # the records in them would not be free before the collector has been through everything
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import PIL.Image  # noqa: F401

    yield


Drawing = Callable[[], bytes]
"""Gives a PNG file."""


def styled(draw: Callable[..., bytes], *args: Any) -> Drawing:
    """A drawing with the looks of the report, by a function and what it is given."""

    def drawing() -> bytes:
        with _style():
            return draw(*args)

    return drawing


@contextmanager
def _style() -> Iterator[None]:
    """Matplotlib with the looks of the report."""
    import matplotlib as mpl

    looks: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 9.5,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "0.6",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "0.92",
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.color": "0.3",
        "ytick.color": "0.3",
        "legend.frameon": False,
        # a class may be called $x
        "text.parse_math": False,
    }
    # from matplotlib's own defaults, so that a user's matplotlibrc changes nothing
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(looks)
        yield


@dataclass(frozen=True)
class Margins:
    """Inches around axes, which have room for a title, ticks with numbers of six characters, and a label below."""

    left: float = 0.62
    right: float = 0.15
    bottom: float = 0.55
    top: float = 0.36
    columns: float = 0.7
    """Between columns."""
    rows: float = 0.8


LABEL = 0.22
"""Inches for a label at the left, or a title above all axes."""


def blank(
    width: float, height: float, columns: int = 1, rows: int = 1, margins: Margins | None = None
) -> tuple[Canvas, list[Axes]]:
    """An empty figure around axes of that many inches each, and these from left to right, row by row."""
    # not pyplot: no global state, no display; nothing that draws before `png`; and not matplotlib's layouts, which
    # measure every word several times: a third of a figure's time
    from matplotlib.figure import Figure as Canvas

    m = margins or Margins()
    inner = columns * width + (columns - 1) * m.columns, rows * height + (rows - 1) * m.rows
    full = m.left + inner[0] + m.right, m.bottom + inner[1] + m.top
    canvas = Canvas(figsize=full, dpi=DPI)
    canvas.subplots_adjust(
        m.left / full[0], m.bottom / full[1], 1 - m.right / full[0], 1 - m.top / full[1], m.columns / width,
        m.rows / height,
    )  # fmt: skip
    return canvas, list(np.atleast_1d(canvas.subplots(rows, columns)).flat)


def extent(words: Iterable[str], size: float, angle: float = 0) -> tuple[float, float]:
    """Inches from side to side and from top to bottom that the largest of some words takes, in points and degrees."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size)
    widths = [text_to_path.get_text_width_height_descent(word, font, ismath=False)[0] for word in words]
    width, height = max(widths, default=0) / 72, size * 1.2 / 72
    turned = math.radians(angle)
    return (
        width * math.cos(turned) + height * math.sin(turned),
        width * math.sin(turned) + height * math.cos(turned),
    )


def add_heading(canvas: Canvas, text: str, size: float = 11) -> None:
    """A title above all axes, for which the margin at the top has a `LABEL` more; the figure is as wide as it needs."""
    width, height = canvas.get_size_inches()
    _grow(canvas, max(width, extent(text.split("\n"), size)[0] + 0.2), height)
    width, height = canvas.get_size_inches()
    canvas.text(0.1 / width, 1 - 0.08 / height, text, fontsize=size, va="top")


def add_legend(canvas: Canvas, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend at the right, by whose width the figure grows, and as high as that needs; before any heading."""
    legend = canvas.legend(handles, labels, loc="center right", fontsize=8.5, borderaxespad=0.4).get_window_extent()
    width, height = canvas.get_size_inches()
    _grow(canvas, width + legend.width / DPI, max(height, legend.height / DPI + 0.1))


def _grow(canvas: Canvas, width: float, height: float) -> None:
    """Make the figure as large, with room at the right; axes fill the height."""
    (old_width, old_height), places = canvas.get_size_inches(), canvas.subplotpars
    canvas.set_size_inches(width, height)
    x, y = old_width / width, old_height / height
    canvas.subplots_adjust(places.left * x, places.bottom * y, places.right * x, 1 - (1 - places.top) * y)


def png(canvas: Canvas) -> bytes:
    """The figure as a PNG of at most 256 colours: a third of the size; shades that are close become one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    # not savefig, which would draw twice, and write a file to be read again
    agg = FigureCanvasAgg(canvas)
    agg.draw()
    full, png = Image.frombytes("RGBA", agg.get_width_height(), bytes(agg.buffer_rgba())), io.BytesIO()
    # the octree finds its colours ten times as fast as the median cut, but greys the paper a little
    few = full.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    palette, corner = few.getpalette() or [], few.getpixel((0, 0))
    assert isinstance(corner, int)
    palette[3 * corner : 3 * corner + 3] = 255, 255, 255
    few.putpalette(palette)
    few.save(png, "png")
    return png.getvalue()
