"""The pieces of a page: pictures inside the file, settings, and the rendering that escapes everything."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, PngImagePlugin

from bontune import __version__
from bontune.base.errors import BontuneError
from bontune.base.files import write_whole
from bontune.report.figure import Plot
from bontune.report.numbers import NOT_MEASURED, number, unbroken
from bontune.training.read_log import finite

_CSS_DPI = 96


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture inside the page."""

    source: str
    """The picture as a data URI."""
    width: int
    """Width in pixels, so that the page does not jump while it loads."""
    height: int
    """Height in pixels."""
    alt: str
    """Alternative text: what the picture shows, in words and numbers."""
    heading: str = ""
    """The heading over it."""
    caption: str = ""
    """The line below it."""
    narrow: str = ""
    """Data URI of the same for narrow screens; empty: there it is wider than the page, and scrolls."""


def picture(png: str | os.PathLike[str] | Plot, *, heading: str, caption: str = "") -> Picture:
    """A PNG, or a plot as a PNG, as part of the page; its alternative text is the description that it carries.

    Raises:
        BontuneError: the file cannot be read or is no PNG.
    """
    try:
        data = png.png() if isinstance(png, Plot) else Path(png).read_bytes()
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            width, height = image.size
            description = image.text.get("Description") if isinstance(image, PngImagePlugin.PngImageFile) else None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow says SyntaxError or ValueError of a broken PNG
        problem = getattr(error, "strerror", None) or "it is not a PNG file"
        raise BontuneError(f"Cannot embed the figure {png}: {problem}.") from error
    source = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    alt = str(description) if description else f"{heading} (the figure carries no description)"
    return Picture(source=source, width=width, height=height, alt=alt, heading=heading, caption=caption)


def drawing(plot: Plot, *, heading: str, caption: str) -> Picture:
    """A plot as part of the page, as SVG."""
    width, height = plot.figure.get_size_inches() * _CSS_DPI
    source = "data:image/svg+xml;base64," + base64.b64encode(plot.svg()).decode("ascii")
    return Picture(
        source=source, width=round(width), height=round(height), alt=plot.description, heading=heading, caption=caption
    )


def facts(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as pairs of a dotted name and a text."""
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            pairs += facts(value, f"{name}.")
        else:
            pairs.append((name, _text(value)))
    return pairs


def write_page(template: str, path: str | os.PathLike[str], context: Mapping[str, Any]) -> Path:
    """Render a template with everything escaped, and write it whole or not at all.

    Raises:
        BontuneError: the file cannot be written.
    """
    return write_whole(path, render(template, context).encode("utf-8", errors="replace"), "report")


def render(template: str, context: Mapping[str, Any]) -> str:
    """Render a template with everything escaped; ``refresh`` in the context: seconds until a browser asks again."""
    return _environment().get_template(template).render(version=__version__, **({"refresh": None} | dict(context)))


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bontune", "report"),
        autoescape=True,  # for every template, whatever its name ends in
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    return environment


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(finite(value))
    return json.dumps(value, ensure_ascii=False, default=str)
