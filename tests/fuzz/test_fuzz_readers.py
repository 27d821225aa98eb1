"""Damaged files of all kinds are read, or refused in one line: a few hundred here, 10,000 in the slow test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

RUNNER = Path(__file__).with_name('runner.py')


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(RUNNER), *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=3000
    )


def check(ended, count):
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1].startswith(f'{count} inputs: ') and ended.stdout.endswith(' 0 findings\n')


def test_a_few_hundred_damaged_files_are_read_or_refused():
    check(run('--count=600', '--seed=17'), 600)


@pytest.mark.slow
def test_thousands_of_damaged_files_are_read_or_refused():
    check(run('--count=2000', '--seed=1'), 2000)


# Readers with one fault each, for the runner to find.
FAULTS = {
    'the process died': 'import os; os.kill(os.getpid(), 11)',
    'KeyError': '{}[0]',
    'seconds': 'while True: pass',
    'MemoryError': 'bytearray(2**36)',
    'the file ran code': "open('owned', 'w').close()",
    'the reader used': "import os; os.system('true')",
    'characters': "raise UserError('')",
}


@pytest.mark.parametrize('fault', FAULTS)
def test_the_runner_finds(fault, tmp_path):
    program = f"""
import sys
sys.path[:0] = {[str(ROOT), str(ROOT / 'tests'), str(RUNNER.parent)]!r}
import runner
from targets import Target
from ssanet_jax.errors import UserError
runner._CPU_SECONDS = 1
def read(folder):
    if b'bad' in (folder / 'file').read_bytes():
        exec({FAULTS[fault]!r})
good = Target(lambda folder: (folder / 'file').write_bytes(b'good'), ['file'], read,
              lambda data, rng: b'bad' if rng.random() < 0.5 else data)
runner.TARGETS['test'] = good
counts, findings = runner.run_target('test', 6, 0)
import json
print(json.dumps([counts['read'], [[f.index, f.problem, f.content.decode()] for f in findings]]))
"""
    ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    read, findings = json.loads(ended.stdout)
    assert read + len(findings) == 6 and 0 < read < 6
    assert all(fault in problem and content == 'bad' for _, problem, content in findings)
