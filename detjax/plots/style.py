"""The looks of all plots, and the files that they are written to."""

import contextlib
import io
import math
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from detjax import files
from detjax.errors import reason

# Okabe and Ito 2008: told apart with any kind of colour blindness.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#8C6D31", "#4D4D4D"),
)
# Lines of the same colour differ in their strokes.
STROKES = ("-", "--", ":")
GREY = "#8A8A8A"
LOOKS: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.titlesize": 11,
    # Names of classes and files are text and no formulas.
    "text.parse_math": False,
}

Makers = Mapping[str, Callable[[], Any]]


@contextlib.contextmanager
def looks() -> Iterator[None]:
    """Within this all that is drawn has these looks, and no other process's."""
    import matplotlib

    settings: Any = {**matplotlib.rcParamsDefault, **LOOKS}
    with matplotlib.rc_context(settings):
        yield


def figure(width: float, height: float, **options: Any) -> Any:
    """An empty Figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", **options)


def line(number: int) -> dict[str, Any]:
    """The colour and stroke of line number `number`."""
    stroke = STROKES[number // len(COLOURS) % len(STROKES)]
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": stroke}


def plain_ticks(axis: Any) -> None:
    """Labels of an axis, x or y, that is logarithmic: plain numbers, not too many."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else 0
    subs = (1.0, 2.0, 5.0) if decades < 2.6 else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def short(name: str, limit: int = 24) -> str:
    """`name` in one line of at most `limit` characters that print."""
    text = "".join(c if c.isprintable() else "?" for c in str(name))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def save(path: pathlib.Path, figure: Any) -> None:
    """Writes a Figure to the PNG file `path` atomically."""
    held = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(held, format="png", dpi=130)
    files.write_bytes(path, held.getvalue())


def save_all(folder: pathlib.Path, makers: Makers) -> list[str]:
    """Makes Figures and writes them into `folder` by file name; returns the names.

    What goes wrong is a warning: numbers matter more than their plots.
    """
    written = []
    for name, make in makers.items():
        try:
            with looks():
                save(folder / name, make())
            written.append(name)
        except Exception as error:
            print(
                f"warning: {folder / name} is not drawn "
                f"({type(error).__name__}: {reason(error)})",
                file=sys.stderr,
            )
    return written
