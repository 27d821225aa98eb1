"""Progress over images: its line, and when lines appear in a log."""

import io
import itertools
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console

from ssanet_jax import activity as module
from ssanet_jax import image_progress
from ssanet_jax.activity import activity, still_line
from ssanet_jax.image_progress import ImageProgress


def test_the_line_leaves_the_first_batch_out_of_the_pace(monkeypatch):
    clock = itertools.count(0, 4)  # seconds between two calls
    monkeypatch.setattr(image_progress, 'time', SimpleNamespace(monotonic=lambda: next(clock)))
    progress = ImageProgress(Console(file=io.StringIO()), 1000, done=100, task='predicting')
    assert progress.line() == 'predicting: 100 of 1000 images  compiling'
    progress.advance(8)
    assert progress.line() == 'predicting: 108 of 1000 images'
    progress.advance(8)
    progress.advance(8)
    assert progress.line() == 'predicting: 124 of 1000 images  2.0 images/s  0:07:18 left'
    later = ImageProgress(Console(file=io.StringIO()), 100, task='looking for parts', later=60)
    for _ in range(3):
        later.advance(20)
    assert later.line() == 'looking for parts: 60 of 100 images  5.0 images/s  0:00:20 left'


class Beats:
    """An `Event` whose `wait` returns when the test says so."""

    def __init__(self):
        self.beat, self.heard = threading.Semaphore(0), threading.Semaphore(0)
        self.ended = False

    def wait(self, seconds):
        self.heard.release()  # what the beat before has printed is there
        self.beat.acquire()
        return self.ended

    def set(self):
        self.ended = True
        self.beat.release()

    def pass_time(self):
        self.heard.acquire()
        self.beat.release()
        self.heard.acquire()
        self.heard.release()


@pytest.fixture
def beats(monkeypatch):
    """Time passes for the lines of a log when the test calls `pass_time`."""
    found = Beats()
    monkeypatch.setattr(module, 'threading', SimpleNamespace(Event=lambda: found, Thread=threading.Thread))
    return found


def test_a_log_says_what_goes_on_at_once_and_again(beats, monkeypatch):
    clock = itertools.count(0, 10)
    monkeypatch.setattr(module, 'time', SimpleNamespace(monotonic=lambda: next(clock)))
    text = io.StringIO()
    with activity(Console(file=text, width=30), 'evaluating [bold] on 48 images of a long name'):
        assert text.getvalue() == 'evaluating [bold] on 48 images of a long name\n'
        beats.pass_time()
        beats.pass_time()
    assert text.getvalue().splitlines()[1:] == [
        'evaluating [bold] on 48 images of a long name (0:00:10 so far)',
        'evaluating [bold] on 48 images of a long name (0:00:20 so far)',
    ]
    assert still_line('x', 61.4) == 'x (0:01:01 so far)'
    assert module.SECONDS < 15


def test_a_log_shows_progress_although_no_batch_ends(beats):
    text = io.StringIO()
    with ImageProgress(Console(file=text), 40, task='computing features') as progress:
        beats.pass_time()
        progress.advance(16)
        beats.pass_time()
    assert text.getvalue().splitlines() == [
        'computing features: 0 of 40 images  compiling',
        'computing features: 16 of 40 images',
    ]


def test_a_terminal_shows_a_bar_and_a_spinner():
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True)
    with activity(console, 'evaluating'):
        pass
    with ImageProgress(console, 40, task='computing features') as progress:
        progress.advance(16)
    assert 'evaluating' in text.getvalue() and '16/40' in text.getvalue()
