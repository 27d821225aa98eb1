"""The pieces of a page: what goes in as text comes out as text, and the page needs nothing else."""

import numpy as np
import pytest
from page_checks import Page, check_page, decode

from ssanet_jax.report.page import (
    Html,
    Section,
    bar,
    card,
    cards,
    element,
    folded,
    join,
    page,
    paragraph,
    picture,
    table,
    text,
    tiles,
    tree,
)

HOSTILE = (
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '</style></title><b>&amp;&lt;',
    '<!-- -->]]><svg onload=alert(1)>',
    'javascript:alert(1)',
)


def whole(*pieces, title='a page'):
    return page(title, paragraph('lead'), [Section('one', 'One', join(*pieces))])


@pytest.mark.parametrize('name', HOSTILE)
def test_untrusted_text_stays_text_everywhere(name):
    dot = np.zeros((4, 4, 3), np.uint8)
    content = page(
        name,
        tiles({name: name}),
        [
            Section('one', name, table([name, name], [[name, name], [name, bar(0.5)]], name)),
            Section(
                'two', 'Two', join(tree({name: name, 'inner': {name: [{'name': name, name: 1}]}}), folded(name, name))
            ),
            Section('three', 'Three', cards([card(picture(dot, name), name, element('b', name, title=name))])),
        ],
        foot=name,
    )
    found = check_page(content)
    assert [image['alt'] for image in found.images] == [name]
    assert ('b', 'title', name) in found.attributes
    assert [name, name] in found.cells
    # As often as it went in, but for attributes: title, contents, heading; tiles; table; tree; folded; card; foot.
    shown = ' '.join(name.split())
    assert found.text.count(shown) == 3 + 2 + 6 + 6 + 2 + 2 + 1
    assert not found.tags & {'script', 'svg'}


def test_text_that_no_page_may_hold_is_replaced():
    assert text('caf\udce9\x00\x1b[2J') == 'caf?  [2J'
    assert text(3) == '3' and text(Html('<b>')) == '<b>' and text('<b>') == '&lt;b&gt;'
    whole('\udcff\x00').encode()


def test_figures_stand_to_the_right_and_words_to_the_left():
    made = Page(table(['a', 'b', 'c'], [['x', 1, 2], ['y', 3, bar(2)]], words=2))
    assert made.cells == [['a', 'b', 'c'], ['x', '1', '2'], ['y', '3', '']]
    kinds = [(tag, value) for tag, name, value in made.attributes if name == 'class' and tag in ('td', 'th')]
    assert kinds == [('th', 'number'), ('td', 'number'), ('td', 'bar')]
    assert ('span', 'style', 'width:100.0%') in made.attributes, 'no bar is wider than its cell'


def test_a_tree_shows_every_field_under_its_full_name():
    settings = {
        'seed': 0,
        'model': {'alpha': 2 ** (1 / 3), 'remat': False, 'name': ''},
        'milestones': [30, 60],
        'stages': [{'name': 'one', 'train': {'backbone': 1.0}}, {'name': 'two', 'train': {}}],
        'nothing': [],
    }
    made = Page(tree(settings))
    names = [value for tag, name, value in made.attributes if tag == 'dt']
    assert names == [
        'config.seed',
        'config.milestones',
        'config.nothing',
        'config.model.alpha',
        'config.model.remat',
        'config.model.name',
        'config.stages[0].name',
        'config.stages[0].train.backbone',
        'config.stages[1].name',
    ]
    for shown in ('1.25992', 'False', 'empty', '30, 60', '1 one', '2 two'):
        assert shown in made.text
    assert ('span', 'title', repr(2 ** (1 / 3))) in made.attributes, 'nothing of a number is lost'


def test_pictures_keep_their_colours_and_size():
    image = np.zeros((16, 24, 3), np.uint8)
    image[:, :12] = (230, 40, 10)
    image[:, 12:] = (20, 60, 220)
    made = Page(picture(image, 'two colours'))
    assert np.abs(decode(made.images[0]['src']).astype(int) - image).max() < 25
    assert (made.images[0]['width'], made.images[0]['height']) == ('24', '16')


def test_the_contents_lead_to_the_sections():
    made = check_page(page('t', Html(), [Section('a', 'First', Html('1')), Section('b', 'Second', Html('2'))]))
    assert made.ids == ['a', 'b'] and made.links == ['#a', '#b']
    assert 'First Second' in made.text.replace('SecondFirst', 'Second First').replace('FirstSecond', 'First Second')


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
    ],
)
def test_the_check_itself_finds_flaws(flaw):
    check_page(whole(Html('<b>sound</b>')))
    with pytest.raises(AssertionError):
        check_page(whole(Html(flaw)))
