"""Downloads of single files from a server on this machine that breaks off, lies, moves and fails."""

import hashlib
import random
import re

import pytest

from ssanet_jax.download import fetch as fetching
from ssanet_jax.download.fetch import fetch
from ssanet_jax.download.sources import PUBLISHED_SETS, Archive
from ssanet_jax.errors import UserError

CONTENT = random.Random(0).randbytes(100_000)
OTHER = random.Random(1).randbytes(100_000)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(fetching.time, 'sleep', lambda seconds: None)


def archive(*urls, content=CONTENT, size=True, algorithm='sha256'):
    digest = hashlib.new(algorithm, content).hexdigest()
    return Archive('set.tgz', urls, f'{algorithm}:{digest}', len(content) if size else None)


@pytest.fixture
def served(mirror):
    """The URLs of a file under these paths, of which the mirror has all."""

    def serve(*paths, **faults):
        mirror.files.update(dict.fromkeys(paths, CONTENT))
        mirror.faults.update({f'/{name}': fault for name, fault in faults.items()})
        return [mirror.url(path) for path in paths]

    return serve


@pytest.mark.parametrize('size', [True, False])
@pytest.mark.parametrize('algorithm', ['sha256', 'md5'])
def test_a_file_arrives_and_is_downloaded_once(mirror, served, tmp_path, size, algorithm):
    file = archive(*served('/a'), size=size, algorithm=algorithm)
    seen = []
    for _ in range(2):
        path = fetch(file, tmp_path, lambda done, total: seen.append((done, total)))
        assert path.read_bytes() == CONTENT and [p.name for p in tmp_path.iterdir()] == ['set.tgz']
    assert len(mirror.requests) == 1 and seen[-1] == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize('size', [True, False])
def test_a_connection_that_breaks_again_and_again_loses_nothing(mirror, served, tmp_path, size):
    assert fetch(archive(*served('/a', a='cut'), size=size), tmp_path).read_bytes() == CONTENT
    starts = [int(asked.strip('bytes=-') or 0) for _, asked in mirror.requests]
    assert len(starts) > 5 and starts == sorted(starts) and starts[1] == len(CONTENT) // 2


@pytest.mark.parametrize('size', [True, False])
@pytest.mark.parametrize('kept', [1, 60_000, len(CONTENT)])
def test_an_earlier_start_is_continued(mirror, served, tmp_path, kept, size):
    (tmp_path / 'set.tgz.part').write_bytes(CONTENT[:kept])
    assert fetch(archive(*served('/a'), size=size), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in mirror.requests] in ([f'bytes={kept}-'], [])


@pytest.mark.parametrize('size', [True, False])
@pytest.mark.parametrize('kept', [OTHER[:60_000], OTHER, OTHER + OTHER], ids=['short', 'whole', 'longer'])
def test_a_wrong_beginning_is_replaced(served, tmp_path, kept, size):
    (tmp_path / 'set.tgz.part').write_bytes(kept)
    assert fetch(archive(*served('/a'), size=size), tmp_path).read_bytes() == CONTENT


def test_servers_without_ranges_start_again(mirror, served, tmp_path):
    (tmp_path / 'set.tgz.part').write_bytes(CONTENT[:60_000])
    assert fetch(archive(*served('/a', a='whole')), tmp_path).read_bytes() == CONTENT
    assert len(mirror.requests) == 1


def test_a_redirect_is_followed_with_the_range(mirror, served, tmp_path):
    (tmp_path / 'set.tgz.part').write_bytes(CONTENT[:60_000])
    assert fetch(archive(*served('/old', '/new', old='/new')[:1]), tmp_path).read_bytes() == CONTENT
    assert mirror.requests == [('/old', 'bytes=60000-'), ('/new', 'bytes=60000-')]


BAD = {
    '404 Not Found': 404,
    '403 Forbidden': 403,
    '503 Service Unavailable': 503,
    'a web page instead of the file': 'page',
    'another part of the file': 'shifted',
    'it cannot be reached': 'dropped',
    'it cannot be reached or loops': '/bad',
}


@pytest.mark.parametrize('reason', BAD)
def test_the_next_mirror_continues_after_one_that_fails(mirror, served, tmp_path, reason):
    (tmp_path / 'set.tgz.part').write_bytes(CONTENT[:60_000])
    assert fetch(archive(*served('/bad', '/good', bad=BAD[reason])), tmp_path).read_bytes() == CONTENT
    assert mirror.requests[-1] == ('/good', 'bytes=60000-')


@pytest.mark.parametrize('reason', list(BAD)[:-1])
def test_without_a_mirror_the_message_gives_the_reason_and_what_to_do(served, tmp_path, reason):
    (tmp_path / 'set.tgz.part').write_bytes(CONTENT[:60_000])
    with pytest.raises(UserError, match=re.escape(reason)) as caught:
        fetch(archive(*served('/bad', bad=BAD[reason])), tmp_path)
    message = str(caught.value)
    assert '\n' not in message and str(tmp_path) in message and 'run the same command again' in message
    assert (tmp_path / 'set.tgz.part').read_bytes() == CONTENT[:60_000] and not (tmp_path / 'set.tgz').exists()


@pytest.mark.parametrize(
    'content, words',
    [(OTHER, 'another checksum'), (OTHER[:500], '500 bytes instead of 100000'), (OTHER * 2, '200000 bytes instead')],
)
def test_a_file_that_is_not_the_published_one_is_refused(mirror, tmp_path, content, words):
    mirror.files.update({'/wrong': content, '/right': CONTENT})
    with pytest.raises(UserError, match=words):
        fetch(archive(mirror.url('/wrong')), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert fetch(archive(mirror.url('/wrong'), mirror.url('/right')), tmp_path).read_bytes() == CONTENT


def test_without_a_known_size_a_wrong_file_is_refused_too(mirror, tmp_path):
    mirror.files['/wrong'] = OTHER * 2
    with pytest.raises(UserError, match='another checksum'):
        fetch(archive(mirror.url('/wrong'), size=False), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_the_users_own_is_checked_and_kept(mirror, served, tmp_path):
    file = archive(*served('/a'))
    (tmp_path / 'set.tgz').write_bytes(OTHER)
    with pytest.raises(UserError, match='not the published file'):
        fetch(file, tmp_path)
    assert (tmp_path / 'set.tgz').read_bytes() == OTHER
    (tmp_path / 'set.tgz').write_bytes(CONTENT)
    fetch(file, tmp_path)
    assert mirror.requests == []


def test_servers_that_are_gone_are_named(tmp_path):
    gone = archive('http://127.0.0.1:1/set.tgz', 'http://name.invalid/set.tgz')
    with pytest.raises(UserError, match='127.0.0.1:1/set.tgz .it cannot be reached.*name.invalid'):
        fetch(gone, tmp_path)


def test_the_table_is_complete():
    assert list(PUBLISHED_SETS) == ['cub', 'cars', 'aircraft', 'flowers', 'pets', 'dogs']
    for source in PUBLISHED_SETS.values():
        assert (
            source.license and source.page.startswith('http') and set(source.published) == {'classes', 'train', 'test'}
        )
        for file in source.archives:
            algorithm, _, digest = file.checksum.partition(':')
            assert re.fullmatch('[0-9a-f]+', digest) and len(digest) == 2 * hashlib.new(algorithm).digest_size
            assert file.urls and all(url.startswith(('https://', 'http://')) for url in file.urls)
