"""The page: untrusted text stays text, everything is embedded, and each template shows its data."""

import numpy as np
import pytest
from markupsafe import Markup
from page_checks import Page, check_page, decode

from ssanet_jax.report.confidence_section import ConfidenceSection
from ssanet_jax.report.explained_section import ExplainedImage, ExplainedSection
from ssanet_jax.report.measurement_sections import FoldedTable, MeasurementSection
from ssanet_jax.report.prediction_sections import (
    ConfusedPairExample,
    ConfusionSection,
    HardExample,
    LoadingSection,
    MistakesSection,
    PartsExample,
    PartsSection,
    PartsTerm,
    PictureSection,
    SimilaritySection,
)
from ssanet_jax.report.rendering import (
    Bar,
    Section,
    Table,
    breakable,
    data_uri,
    environment,
    format_setting,
    printable,
    render_report,
)
from ssanet_jax.report.run_sections import (
    CurveChart,
    CurvesSection,
    DataSection,
    Figure,
    Header,
    ResultsSection,
    SettingsSection,
    curve_style,
)

HOSTILE = (
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '</style></title><b>&amp;&lt;',
    '<!-- -->]]><svg onload=alert(1)>',
    'javascript:alert(1)',
    '{{ 7 * 7 }}{% raw %}',
)
DOT = np.zeros((4, 4, 3), np.uint8)
SVG = Markup('<svg></svg>')


def render(*sections, name='a page', header=None):
    return render_report(name, header or Header(name, name, name, [Figure(name, name, name)]), sections, name)


def macro(name, *arguments):
    return getattr(environment().get_template('macros.html.j2').module, name)(*arguments)


def every_section(name):
    """A section of each template, all of whose texts are `name`: (template, content, how often it is shown)."""
    table = Table([name, name], [[name, name], [name, Bar(0.5)]], name)  # 6 times
    return [
        ('results', ResultsSection(table, name, name, [name], name), 10),
        ('curves', CurvesSection(name, [CurveChart(name, [(name, curve_style(name))] * 2, SVG)], name), 5),
        ('measurement', MeasurementSection(name), 1),
        ('measurement', MeasurementSection('', table, (FoldedTable(name, table),), name), 14),
        (
            'parts',
            PartsSection(
                name,
                [
                    PartsExample(DOT, name, name, name, name, [PartsTerm(name, 'red', name)]),
                    PartsExample(DOT, name, '', '1 %', name, [PartsTerm(name, '', name)]),
                ],
            ),
            8,
        ),
        ('annotated', PictureSection(name, DOT, name), 1),
        (
            'explained',
            ExplainedSection(name, name, [ExplainedImage(DOT, name, name, right) for right in (True, False)]),
            4,
        ),
        ('similarity', SimilaritySection(name, SVG, table, name), 8),
        ('confidence', ConfidenceSection(name, SVG, SVG, table, name), 8),
        ('confusion', ConfusionSection(SVG, table, [ConfusedPairExample(DOT, DOT, name, name, 1, 2, name)]), 9),
        ('confusion', ConfusionSection(SVG, table, [ConfusedPairExample(DOT, None, name, name, 1, 2, name)]), 9),
        ('mistakes', MistakesSection(table, [HardExample(DOT, name, name, name, 0.5, name)], name, [name]), 12),
        ('loading', LoadingSection(name, [(name, 1.5)]), 2),
        ('data', DataSection(table, {name: name}, name, True, table), 15),
        ('settings', SettingsSection({name: name}, {name: {name: name}}, [{'name': name, name: [name]}]), 9),
    ]


@pytest.mark.parametrize('name', HOSTILE)
def test_untrusted_text_stays_text_everywhere(name):
    shown = ' '.join(name.split())
    around = 1 + 6 + 1  # the page's title, the header, the footer
    for number, (template, content, times) in enumerate(every_section(name)):
        page = check_page(render(Section(f's{number}', name, f'{template}.html.j2', content), name=name))
        assert page.text.count(shown) == times + around + 2, template  # heading and table of contents
    text_only = check_page(render(Section('s', 's', 'none', name), name=name))
    assert text_only.text.count(shown) == around + 1


def test_every_template_is_covered():
    covered = {f'{template}.html.j2' for template, _, _ in every_section('')} | {'report.html.j2', 'macros.html.j2'}
    assert set(environment().list_templates()) == covered


def test_characters_that_no_page_may_hold_are_replaced():
    assert printable('caf\udce9\x00\x1b[2J\ufffe') == 'caf?  [2J '
    assert printable(3) == '3'
    render(name='\udcff\x00').encode()


def test_file_names_break_after_slashes_and_underscores():
    assert breakable('a/b_c<d') == 'a/<wbr>b_<wbr>c&lt;d' and breakable('a/') == 'a/'


def test_numbers_are_aligned_to_the_right_and_text_to_the_left():
    made = Page(macro('table', Table(['a', 'b', 'c'], [['x', 1, 2], ['y', 3, Bar(2)]], text_columns=2)))
    assert made.cells == [['a', 'b', 'c'], ['x', '1', '2'], ['y', '3', '']]
    kinds = [(tag, value) for tag, name, value in made.attributes if name == 'class' and tag in ('td', 'th')]
    assert kinds == [('th', 'number'), ('td', 'number'), ('td', 'bar')]
    assert ('span', 'style', 'width: 100.0%') in made.attributes, 'no bar is wider than its cell'


def test_a_tree_shows_every_field_under_its_full_name():
    settings = {
        'seed': 0,
        'model': {'alpha': 2 ** (1 / 3), 'remat': False, 'name': ''},
        'milestones': [30, 60],
        'nothing': [],
    }
    made = Page(macro('tree', settings) + macro('tree', {'train': {'backbone': 1.0}}, 'config.stages[0]'))
    names = [value for tag, name, value in made.attributes if tag == 'dt']
    assert names == [
        'config.seed',
        'config.milestones',
        'config.nothing',
        'config.model.alpha',
        'config.model.remat',
        'config.model.name',
        'config.stages[0].train.backbone',
    ]
    for shown in ('1.25992', 'False', 'empty', '30, 60'):
        assert shown in made.text
    assert ('span', 'title', repr(2 ** (1 / 3))) in made.attributes, 'the tooltip has all digits'
    assert format_setting((0.1, None, 'x')) == '0.1, , x'


def test_pictures_keep_their_colors_and_size():
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, :12] = (230, 40, 10)
    image[:, 12:] = (20, 60, 220)
    made = Page(macro('picture', image, 'two colors'))
    assert made.images[0]['src'] == data_uri(image) and made.images[0]['alt'] == 'two colors'
    assert np.abs(decode(made.images[0]['src']).astype(int) - image).max() < 25
    assert (made.images[0]['width'], made.images[0]['height']) == ('24', '16')


def test_the_contents_link_to_the_sections():
    made = check_page(render(Section('a', 'First', 'none', '1'), Section('b', 'Second', 'none', '2')))
    assert made.ids == ['a', 'b'] and made.links == ['#a', '#b']
    assert 'First Second' in made.text


def test_sections_of_interest_to_few_are_folded_away_at_the_end():
    """Links lead to the folded sections as well."""
    sections = [
        Section('a', 'First', 'none', 'It does not apply.'),
        Section('b', 'Second', 'loading.html.j2', LoadingSection('slow', [])),
        Section('c', 'Third', 'measurement.html.j2', MeasurementSection('measure it')),
        Section('d', 'Fourth', 'measurement.html.j2', MeasurementSection('', Table([], []))),
        Section('e', 'Fifth', 'loading.html.j2', LoadingSection('fast', [], folded=True)),
    ]
    made = check_page(render(*sections))
    assert made.ids == [*'bdace'] and made.links == ['#b', '#d', '#a', '#c', '#e']
    assert [value for tag, name, value in made.attributes if (tag, name) == ('details', 'id')] == ['a', 'c', 'e']
    assert not [name for tag, name, _ in made.attributes if (tag, name) == ('details', 'open')]
    assert all(text in made.text for text in ('It does not apply.', 'measure it', 'fast'))


@pytest.mark.parametrize(
    'flaw',
    [
        '<b><i></b></i>',
        '<div>',
        '</div>',
        '<p><div></div></p>',
        '<script></script>',
        '<a href="#nowhere">x</a>',
        '<a href="https://example.org">x</a>',
        '<img src="picture.jpg" width="1" height="1" alt="x">',
        '<b onclick="x()">x</b>',
        '<b id="one">x</b>',
        '<b style="background:url(x.png)">x</b>',
        '<b class="a" class="b">x</b>',
        '<svg><style>b {}</style></svg>',
    ],
)
def test_the_check_itself_finds_flaws(flaw):
    page = lambda html: render(
        Section('one', 'One', 'curves.html.j2', CurvesSection('', [CurveChart('', [], html)], ''))
    )
    check_page(page(Markup('<b>sound</b>')))
    with pytest.raises(AssertionError):
        check_page(page(Markup(flaw)))
