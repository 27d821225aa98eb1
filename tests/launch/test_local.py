"""local.sh: every process gets its flags, and whatever ends the run leaves no process behind."""

import re
import signal
import subprocess
import time

import pytest
from launch_sandbox import CONFIG, DIR, FLAG, GOOD, TRAIN, Sandbox, wait_until

# Replaces `python -m ssanet_jax.main`: it records its id and that of a child, then does as its case says.
FAKE_TRAINING = """
[[ $1 == -c ]] && exit 0
id=${@: -1}; id=${id##*=}
echo "$JAX_PLATFORMS" >"$DIR/platform_$id"
sleep 300 & echo $! >"$DIR/child_$id"; echo $$ >"$DIR/process_$id"
end() { kill %1; exit "$1"; }
case $id in """


def local(sandbox: Sandbox, cases: str, processes: int, **variables: str) -> subprocess.Popen:
    sandbox.real('sleep', 'env')
    python = sandbox.tool('python', FAKE_TRAINING + cases + ' esac')
    return sandbox.start(
        'local.sh',
        f'--processes={processes}',
        CONFIG,
        DIR,
        FLAG,
        PYTHON=str(python),
        DIR=str(sandbox.folder),
        **{'PORT': '4321', 'GRACE': '5', **variables},
    )


def started(sandbox: Sandbox, processes: int) -> list[int]:
    """The ids of the fake trainings and of their children, once all have started."""
    files = [sandbox.folder / f'{kind}_{i}' for kind in ('process', 'child') for i in range(processes)]
    wait_until(lambda: all(file.exists() and file.read_text().strip() for file in files))
    return [int(file.read_text()) for file in files]


def running(pid: int) -> bool:
    state = subprocess.run(['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith('Z')  # a zombie has ended, and only waits to be counted


def assert_none_left(pids: list[int]) -> None:
    wait_until(lambda: not any(map(running, pids)), seconds=5)


@pytest.mark.parametrize('processes', [2, 3])
def test_local_gives_every_process_its_flags(processes, sandbox):
    process = local(sandbox, '*) end 0;;', processes)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    calls = [call for call in sandbox.calls() if '-m' in call]
    meet = ['--coordinator=127.0.0.1:4321', f'--processes={processes}']
    assert sorted(calls) == [['python', *TRAIN, *meet, f'--process_id={i}'] for i in range(processes)]
    assert {file.read_text() for file in sandbox.folder.glob('platform_*')} == {'cpu\n'}
    assert_none_left(started(sandbox, processes))


def test_local_finds_a_port(sandbox):
    ports = set()
    for _ in range(3):
        done = sandbox.run('local.sh', '--dry_run', *GOOD)
        (found,) = set(re.findall(r'127\.0\.0\.1:(\d+)', done.stdout))
        assert 20000 <= int(found) < 30000
        ports.add(found)
    assert len(ports) > 1


@pytest.mark.parametrize('processes', [2, 3])
@pytest.mark.parametrize('how, code', [('sleep 1; end 7', 7), ('sleep 1; kill -KILL $$', 137)])
def test_local_ends_all_when_one_ends_badly(how, code, processes, sandbox):
    process = local(sandbox, f'1) {how};; *) sleep 200;;', processes)
    pids = started(sandbox, processes)
    begin = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert time.monotonic() - begin < 20
    assert f'process 1 of {processes} ended with exit code {code}' in stderr
    assert_none_left(pids)  # nor a child of the one that was killed, and could not end it


def test_local_waits_for_the_slower_ones(sandbox):
    process = local(sandbox, '0) end 0;; *) sleep 2; end 0;;', 2)
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.parametrize('sent, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_local_ends_all_on_a_signal(sent, code, sandbox):
    process = local(sandbox, '*) sleep 200;;', 3)
    pids = started(sandbox, 3)
    process.send_signal(sent)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert_none_left(pids)


def test_local_kills_those_that_do_not_listen(sandbox):
    process = local(sandbox, "*) trap '' TERM; while :; do sleep 1; done;;", 2, GRACE='1')
    pids = started(sandbox, 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert_none_left(pids)
