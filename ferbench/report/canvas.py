"""The paper on which the report draws."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

DPI = 110


@contextmanager
def style() -> Iterator[None]:
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


def blank(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Canvas, list[Axes]]:
    """An empty figure of that many inches, and its axes from left to right, row by row."""
    # not pyplot: no global state, no display; and nothing that draws before `png`: seaborn would, for its labels
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), dpi=DPI, layout="constrained")
    return canvas, list(np.atleast_1d(canvas.subplots(rows, columns)).flat)


def lay_out(canvas: Canvas) -> None:
    """Put everything in its place, once more."""
    engine = canvas.get_layout_engine()
    assert engine is not None
    engine.execute(canvas)


def png(canvas: Canvas) -> bytes:
    """The figure as a PNG of 256 colours: a third of the size, and no difference to the eye."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    # not savefig, which would draw twice, and write a file to be read again
    agg = FigureCanvasAgg(canvas)
    agg.draw()
    full, png = Image.frombytes("RGBA", agg.get_width_height(), bytes(agg.buffer_rgba())), io.BytesIO()
    full.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(png, "png", optimize=True)
    return png.getvalue()
