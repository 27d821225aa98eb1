"""Renders the report from templates into one HTML file that needs no network and no other file."""

import base64
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup, escape

JPEG_QUALITY = 85
_PACKAGE = 'ssanet_jax.report'


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
      id: the id of the HTML element: letters, digits and hyphens.
      title: its heading and its entry in the table of contents.
      template: file in `templates/` that shows `content`.
      content: the data that the template shows, or a string to be shown instead of it.
    """

    id: str
    title: str
    template: str
    content: Any

    @property
    def is_folded(self) -> bool:
        """Whether it is of interest to few: only a reason why there is nothing to show, or content that says so."""
        return isinstance(self.content, str) or getattr(self.content, 'folded', False)


@dataclass(frozen=True)
class Bar:
    """A table cell that draws a share in [0, 1] as a bar."""

    share: float


@dataclass(frozen=True)
class Table:
    """A table; its first `text_columns` columns hold text, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ''
    text_columns: int = 1


def render_report(title: str, header: object, sections: Sequence[Section], footer: str) -> str:
    """The whole page. Every text is escaped; its Content-Security-Policy forbids scripts and requests.

    Args:
      title: the title of the page.
      header: a `run_sections.Header`.
      sections: the sections, in order; those of interest to few are folded away at the end.
      footer: the last line.
    """
    style = importlib.resources.files(_PACKAGE).joinpath('report.css').read_text()
    template = environment().get_template('report.html.j2')
    ordered = sorted(sections, key=lambda section: section.is_folded)  # stable
    return template.render(title=title, header=header, sections=ordered, footer=footer, style=Markup(style))


def environment() -> jinja2.Environment:
    """The templates, with their filters."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    made.filters.update(data_uri=data_uri, breakable=breakable, setting=format_setting)
    return made


def printable(value: object) -> str:
    """Text without the characters that HTML and XML do not allow.

    File names may hold bytes that are not UTF-8, which Python keeps as lone surrogates.
    """
    encodable = str(value).encode('utf-8', 'replace').decode()
    return ''.join(c if c >= ' ' and c not in '\x7f\ufffe\uffff' else ' ' for c in encodable)


def data_uri(image: np.ndarray) -> str:
    """An RGB image, uint8 `[H, W, 3]`, as a JPEG data URI."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,  # colored lines stay sharp
    ]
    _, encoded = cv2.imencode('.jpg', image[..., ::-1], options)
    return f'data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}'


def breakable(file_name: str) -> Markup:
    """A file name that may continue on a new line after each `/` and `_`."""
    escaped = str(escape(printable(file_name)))
    return Markup(escaped.replace('/', '/<wbr>').replace('_', '_<wbr>').removesuffix('<wbr>'))


def format_setting(value: object) -> str:
    """The value of a configuration field."""
    if isinstance(value, (list, tuple)):
        return ', '.join(map(format_setting, value))
    if isinstance(value, float):
        return f'{value:.6g}'
    return '' if value is None else str(value)
