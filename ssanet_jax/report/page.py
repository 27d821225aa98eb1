"""Pieces of a page that needs nothing but itself: no network, no scripts, pictures inside.

Every piece takes plain text and escapes it, since names of classes and files come from who knows where; only what is
`Html` already is taken as it is.
"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from ssanet_jax.report.page_style import STYLE

QUALITY = 85  # of JPEG


class Html(str):
    """Text that is HTML already, and safe."""


class Section(NamedTuple):
    """A part of the page with an entry in its table of contents."""

    key: str  # its id: letters, digits and hyphens
    title: str
    body: Html


def text(value: object) -> Html:
    """Anything as HTML; what is `Html` stays as it is."""
    if isinstance(value, Html):
        return value
    # What UTF-8 cannot hold (file names of other encodings) and what HTML does not allow.
    readable = str(value).encode('utf-8', 'replace').decode()
    return Html(html.escape(''.join(c if c >= ' ' and c != '\x7f' else ' ' for c in readable)))


def join(*pieces: object) -> Html:
    """Pieces one after the other."""
    return Html(''.join(map(text, pieces)))


def element(tag: str, *content: object, **attributes: object) -> Html:
    """`<tag name="value">content</tag>`; `class_` is written for `class`, and what is None is left out."""
    attributes = {name.rstrip('_').replace('_', '-'): value for name, value in attributes.items() if value is not None}
    given = ''.join(f' {name}="{text(value)}"' for name, value in attributes.items())
    return Html(f'<{tag}{given}>{join(*content)}</{tag}>')


def paragraph(*content: object, class_: str | None = None) -> Html:
    return element('p', *content, class_=class_)


def table(
    headings: Sequence[object], rows: Iterable[Sequence[object]], caption: object = '', *, words: int = 1
) -> Html:
    """A table that scrolls by itself where the page is too narrow.

    Args:
      headings: of the columns.
      rows: cells; those that `bar` made are drawn as one.
      caption: above it.
      words: number of columns, from the left, that hold words; the others hold figures.
    """
    kind = lambda column: None if column < words else 'number'
    cell = lambda column, value: value if isinstance(value, _Cell) else element('td', value, class_=kind(column))
    head = join(*(element('th', value, class_=kind(column), scope='col') for column, value in enumerate(headings)))
    body = join(*(element('tr', *(cell(column, value) for column, value in enumerate(row))) for row in rows))
    whole = element('table', element('thead', element('tr', head)), element('tbody', body))
    # The caption stays in place while the table scrolls.
    title = element('figcaption', caption) if caption else Html()
    return element('figure', title, element('div', whole, class_='scroll'))


class _Cell(Html):
    """A `<td>` of its own kind."""


def bar(share: float) -> Html:
    """A cell that draws a share in [0, 1]."""
    return _Cell(element('td', element('span', style=f'width:{100 * min(max(share, 0), 1):.1f}%'), class_='bar'))


def tiles(facts: Mapping[str, object]) -> Html:
    """The figures to see first."""
    return element(
        'dl',
        *(element('div', element('dt', name), element('dd', value)) for name, value in facts.items()),
        class_='tiles',
    )


def folded(summary: object, *content: object, is_open: bool = False) -> Html:
    """Content that the reader opens and closes."""
    start = '<details open>' if is_open else '<details>'
    return Html(f'{start}{element("summary", summary)}{element("div", *content, class_="inside")}</details>')


def tree(value: Mapping[str, Any], path: str = 'config') -> Html:
    """Nested settings, every level of which can be folded. Pointing at a field tells its full name."""
    fields, branches = [], []
    for name, inner in value.items():
        place = f'{path}.{name}'
        if isinstance(inner, Mapping):
            branches.append(folded(name, tree(inner, place), is_open=True))
        elif isinstance(inner, (list, tuple)) and any(isinstance(item, Mapping) for item in inner):
            items = [
                folded(f'{i + 1} {item.get("name", "")}', tree(item, f'{place}[{i}]'), is_open=True)
                for i, item in enumerate(inner)
            ]
            branches.append(folded(name, *items, is_open=True))
        else:
            fields += [element('dt', name, title=place), element('dd', _setting(inner))]
    listed = element('dl', *fields, class_='fields') if fields else Html()
    return join(listed, *branches)


def _setting(value: object) -> Html:
    if isinstance(value, (list, tuple)):
        return Html(', '.join(map(_setting, value))) if value else _setting('')
    if isinstance(value, float):
        return element('span', f'{value:.6g}', title=repr(value))
    return element('span', 'empty', class_='soft') if value in ('', None) else text(value)


def picture(image: np.ndarray, description: str) -> Html:
    """An `<img>` that holds its picture, uint8 `[H, W, 3]`, RGB."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,  # coloured lines stay sharp
    ]
    _, encoded = cv2.imencode('.jpg', image[..., ::-1], options)
    height, width = image.shape[:2]
    data = base64.b64encode(encoded.tobytes()).decode()
    return Html(
        f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{text(description)}">'
    )


def card(content: Html, *caption: object) -> Html:
    """A picture with its caption, for `cards`."""
    return element('figure', content, element('figcaption', *caption))


def cards(figures: Iterable[Html], kind: str = '') -> Html:
    """Figures side by side, as many as fit."""
    return element('div', *figures, class_=f'cards {kind}'.strip())


def page(title: str, lead: Html, sections: Sequence[Section], foot: object = '') -> str:
    """The whole page, with a table of contents.

    The policy in its head forbids scripts and every request, should some text ever get through unescaped.
    """
    entries = [element('li', element('a', section.title, href=f'#{section.key}')) for section in sections]
    bodies = [element('section', element('h2', section.title), section.body, id=section.key) for section in sections]
    contents = element('nav', element('ul', *entries), aria_label='Contents')
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<div class="frame">\n'
        f'<header>{lead}</header>\n{contents}\n<main>\n{"".join(bodies)}\n{element("footer", foot)}\n'
        '</main>\n</div>\n</body>\n</html>\n'
    )
