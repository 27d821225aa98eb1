"""Parses a page and checks what the report promises: valid, safe and self-contained."""

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np

VOID = {'meta', 'img', 'br', 'hr', 'wbr'}
# Tags of HTML. The `<image>` of SVG is allowed, with a data URI.
FORBIDDEN = {'script', 'link', 'iframe', 'object', 'embed', 'base', 'form', 'input', 'audio', 'video', 'source'}
# A browser closes an open paragraph before these.
NOT_IN_PARAGRAPHS = {'p', 'div', 'table', 'ul', 'ol', 'dl', 'figure', 'section', 'details', 'h1', 'h2', 'h3'}


class Page(HTMLParser):
    """The content of a page.

    Raises:
      AssertionError: tags are not nested, or a tag has an attribute twice.
    """

    def __init__(self, content: str):
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str]] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []  # (tag, name, value)
        self.style = ''
        self.cells: list[list[str]] = []  # of each row of all tables
        self._text: list[str] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert not self._open, f'not closed: {self._open}'
        self.text = ' '.join(''.join(self._text).split())

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f'an attribute twice in <{tag}>: {names}'
        self.tags.add(tag)
        given = {name: value or '' for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in given.items()]
        if 'id' in given:
            self.ids.append(given['id'])
        if tag == 'a':
            self.links.append(given['href'])
        if tag == 'img':
            self.images.append(given)
        if tag in NOT_IN_PARAGRAPHS:
            assert 'p' not in self._open, f'<{tag}> in a paragraph'
        if tag == 'tr':
            self.cells.append([])
        if tag in ('td', 'th'):
            self.cells[-1].append('')
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert 'svg' in self._open, f'<{tag}/> is valid only in SVG'
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f'</{tag}> closes {self._open[-3:]}'
        self._open.pop()

    def handle_data(self, data):
        if 'style' in self._open:
            assert 'svg' not in self._open, 'a style sheet in an SVG applies to the whole page'
            self.style += data
            return
        if (self._open and self._open[-1] in ('td', 'th')) or {'td', 'th'} & set(self._open):
            self.cells[-1][-1] += data
        self._text.append(data)


def check_page(content: str) -> Page:
    """Checks a page and returns its content."""
    page = Page(content)
    assert not page.tags & FORBIDDEN, f'forbidden tags: {page.tags & FORBIDDEN}'
    for tag, name, value in page.attributes:
        assert not name.startswith('on'), f'{tag} {name}={value[:50]}'
        if name in ('href', 'src', 'srcset', 'action', 'xlink:href', 'poster', 'background', 'data'):
            assert value.startswith(('#', 'data:image/')), f'{tag} {name}={value[:50]}'
        if name not in ('alt', 'title', 'xmlns'):  # text, and a name that is not requested
            assert not re.match(r'\s*(https?:|//|javascript:)', value, re.IGNORECASE), f'{tag} {name}={value[:50]}'
        assert 'url(' not in value.lower() or name in ('alt', 'title'), f'{tag} {name}={value[:50]}'
    assert not re.search(r'url\(|@import|@font-face', page.style)
    assert len(set(page.ids)) == len(page.ids), 'an id occurs twice'
    assert page.links and {link[1:] for link in page.links} <= set(page.ids), 'a link to a missing id'
    for image in page.images:
        assert decode(image['src']).shape[:2] == (int(image['height']), int(image['width']))
        assert image['alt']
    policy = {name: value for tag, name, value in page.attributes if tag == 'meta' and name == 'content'}
    assert policy and "default-src 'none'" in content
    return page


def decode(source: str) -> np.ndarray:
    """The picture in a data URI, uint8 `[H, W, 3]`, RGB."""
    kind, data = source.split(',', 1)
    assert kind == 'data:image/jpeg;base64'
    return cv2.imdecode(np.frombuffer(base64.b64decode(data, validate=True), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
