"""Matplotlib figures as SVG elements of the report, which follow the page's light and dark colors."""

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssanet_jax.report.rendering import printable

_PIXELS_PER_UNIT = 1.2
UNIT = 1 / 72  # inches: one user unit of Matplotlib's SVG
HOVER = 'hover:'  # starts the gid of an artist whose remaining gid becomes its tooltip

# Matplotlib draws in placeholder colors, which `to_svg` replaces by the CSS variables of report.css.
_CSS_COLORS = ('ink', 'soft', 'rule', 'matrix', 'c-prediction', 'c-image', 'c-mining', 'c-pooling', 'c-other')
_CSS_COLORS += ('c-batches',)
PLACEHOLDER = {name: f'#0000{number:02x}' for number, name in enumerate(_CSS_COLORS, 1)}


def style_axes(axes: Axes, font_size: float = 12, text_color: str = 'soft', frame: bool = False) -> None:
    """Gives axes the colors of the page; `frame` draws their border."""
    axes.tick_params(labelsize=font_size, labelcolor=PLACEHOLDER[text_color], color=PLACEHOLDER['rule'])
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(frame)
        spine.set_color(PLACEHOLDER['rule'])


def to_svg(figure: Figure, title: str, css_class: str, tight: bool = False) -> Markup:
    """Saves a figure as an `<svg>` element to be placed in an HTML page.

    Args:
      figure: the figure.
      title: describes it for screen readers; unique in the page, since the ids of shared markers derive from it.
      css_class: an additional class of the element.
      tight: fit the picture to its content, such as long labels.
    """
    buffer = io.StringIO()
    title = printable(title)
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': title}), warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph .* missing from font')  # the page's fonts have it
        figure.savefig(buffer, format='svg', transparent=True, bbox_inches='tight' if tight else None)
    root = ElementTree.fromstring(buffer.getvalue())
    for name in ('width', 'height', 'version'):
        root.attrib.pop(name, None)
    width = float(root.attrib['viewBox'].split()[2])
    natural = f'--natural: {_PIXELS_PER_UNIT * width:.0f}px'  # at which text is as large as that of the page
    root.attrib.update({'class': f'chart {css_class}', 'role': 'img', 'style': natural})
    _remove_page_wide_elements(root)
    elements = list(root.iter())
    references = {value[1:] for element in elements for name, value in element.items() if name.endswith('href')}
    for element in elements:
        element.tag = element.tag.rpartition('}')[2]
        attributes = {name.rpartition('}')[2]: value for name, value in element.items()}
        attributes.pop('clip-path', None)  # nothing is drawn outside of the axes
        if 'style' in attributes:
            style = re.sub('font-family: [^;]*; *', '', attributes['style'])  # that of the page
            attributes['style'] = re.sub('#0000([0-9a-f]{2})', _css_variable, style)
        gid = attributes.get('id', '')
        if gid not in references:  # Matplotlib's own ids are not unique in a page
            attributes.pop('id', None)
        if gid in ('bar', 'curve', 'stage'):
            attributes['class'] = gid
        element.attrib.clear()
        element.attrib.update(attributes)
        if gid.startswith(HOVER):
            _insert_title(element, gid[len(HOVER) :])
    _insert_title(root, title)
    return Markup(ElementTree.tostring(root, encoding='unicode'))


def _remove_page_wide_elements(root: ElementTree.Element) -> None:
    """Removes `<metadata>` and `<style>`: a style sheet in an SVG would apply to the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(('}metadata', '}style', '}clipPath')):
                parent.remove(child)


def _insert_title(element: ElementTree.Element, text: str) -> None:
    title = ElementTree.Element('title')
    title.text = text
    element.insert(0, title)


def _css_variable(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    return f'var(--{_CSS_COLORS[number - 1]})' if 1 <= number <= len(_CSS_COLORS) else match[0]
