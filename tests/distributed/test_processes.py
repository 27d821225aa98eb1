"""Several real processes over loopback train as one does; if one dies, the others end soon after."""

import contextlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from commands import ROOT, train_command

from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.best_checkpoint import restore_network
from ssanet_jax.runs.evaluation_count import num_test_evaluations
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, read_predictions
from ssanet_jax.runs.run import load_run
from ssanet_jax.training.triggers import Triggers

CONFIG = Path(__file__).with_name('two_stages.py')
PATIENCE = 60  # seconds that a process may outlive another
# So small that rounding, which differs with the number of processes, is not blown up by the steps that follow.
RATES = [f'--config.stages[{index}].learning_rate=1e-6' for index in range(2)]


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return f'127.0.0.1:{probe.getsockname()[1]}'


def start(workdir, count, *settings, config=CONFIG):
    address = free_address()
    return [
        subprocess.Popen(
            [
                *train_command(workdir, config),
                *settings,
                *(f'--coordinator={address}', f'--processes={count}', f'--process_id={i}'),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def networks(workdir):
    """The weights that each stage ended with."""
    run = load_run(workdir)
    _, params, stats = split_model(run.model)
    return [restore_network(workdir, stage['name'], params, stats, groups=params) for stage in run.config.stages]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """The work directory and last line of a run of one process."""
    workdir = tmp_path_factory.mktemp('alone') / 'run'
    done = subprocess.run([*train_command(workdir, CONFIG), *RATES], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_two_processes_end_where_one_ends(alone, tmp_path):
    workdir = tmp_path / 'run'
    # The second stage from descriptions, each kept by one process and read by all; in one epoch that changes nothing.
    children = start(workdir, 2, *RATES, '--config.stages[1].cache=1')
    outputs = [child.communicate(timeout=600) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert outputs[0][0].splitlines()[-1] == alone[1]
    assert not any(line.startswith('accuracy') for line in outputs[1][0].splitlines())
    for one, several in zip(networks(alone[0]), networks(workdir), strict=True):
        chex.assert_trees_all_close(several, one, rtol=1e-4, atol=1e-5)
    one, several = (read_predictions(path / PREDICTIONS_FILE, '') for path in (alone[0], workdir))
    np.testing.assert_array_equal(several.labels, one.labels)  # the images have the same order
    for head, expected in one.log_probabilities.items():
        np.testing.assert_allclose(several.log_probabilities[head], expected, rtol=1e-3, atol=1e-3)
    assert several.image_set == one.image_set
    assert num_test_evaluations(workdir) == num_test_evaluations(alone[0]) == 2  # one per stage


@pytest.mark.slow
def test_a_fit_whose_heads_are_split_over_processes(tmp_path):
    """No process holds all weights of scale mining and oriented pooling. The fit is that of one process.

    The last batch of views is cut short: 62 images, 8 per batch.
    """
    config = CONFIG.with_name('fit_stage.py')
    found = []
    for count in (1, 2):
        workdir = tmp_path / str(count)
        children = start(workdir, count, '--config.mesh.shard_heads=True', config=config)
        outputs = [child.communicate(timeout=600) for child in children]
        assert not any(child.returncode for child in children), outputs
        found.append(networks(workdir))
    chex.assert_trees_all_close(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_others_end_when_one_is_killed_and_fewer_go_on(alone, tmp_path):
    workdir = tmp_path / 'run'
    children = start(workdir, 2, *RATES)
    try:
        while not any(
            path.name.isdigit() for path in (workdir / 'scale_mining' / 'checkpoints').glob('*')
        ):  # committed
            assert all(child.poll() is None for child in children), [child.communicate() for child in children]
            time.sleep(0.05)
        children[1].send_signal(signal.SIGKILL)
        began = time.monotonic()
        _, stderr = children[0].communicate(timeout=600)
        assert time.monotonic() - began < PATIENCE
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert children[0].returncode not in (0, None)
    assert stderr.strip()

    again = subprocess.run([*train_command(workdir, CONFIG), *RATES], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert 'scale_mining: going on from step' in again.stderr
    assert again.stdout.splitlines()[-1] == alone[1]
    for one, resumed in zip(networks(alone[0]), networks(workdir), strict=True):
        chex.assert_trees_all_close(resumed, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('10.0.0.1:1', 2, None), '--process_id is missing'),
        ((None, 2, 0), '--coordinator is missing'),
        (('10.0.0.1:1', 2, 2), '--process_id=2 must lie between'),
        (('10.0.0.1', 2, 0), 'no port'),
    ],
)
def test_flags_that_make_no_sense(arguments, words):
    with pytest.raises(UserError, match=words):
        processes.initialize(*arguments)


def test_the_environment_speaks_where_the_flags_are_silent(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.distributed, 'initialize', lambda *arguments, **_: asked.append(arguments))
    processes.initialize(None, None, None)
    assert not asked  # alone
    for name, value in (('JAX_COORDINATOR_ADDRESS', 'a:1'), ('JAX_NUM_PROCESSES', '3'), ('JAX_PROCESS_ID', '2')):
        monkeypatch.setenv(name, value)
    processes.initialize(None, None, None)
    processes.initialize('b:2', None, 1)
    assert asked == [('a:1', 3, 2), ('b:2', 3, 1)]
    monkeypatch.setenv('JAX_NUM_PROCESSES', 'three')
    with pytest.raises(UserError, match='--processes=three is not a number'):
        processes.initialize(None, None, None)
    for name in list(os.environ):
        if name.startswith('JAX_') and name.split('_')[1] in ('COORDINATOR', 'NUM', 'PROCESS'):
            monkeypatch.delenv(name)
    monkeypatch.setenv('SLURM_PROCID', '0')
    monkeypatch.setenv('SLURM_STEP_NUM_TASKS', '2')
    processes.initialize(None, None, None)
    assert asked[-1] == (None, None, None)


@contextlib.contextmanager
def metadata_server(attributes):
    """A stand-in of the metadata server of a Cloud TPU VM; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix('/computeMetadata/v1/instance/attributes/')
            known = name in attributes and self.headers['Metadata-Flavor'] == 'Google'
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(attributes.get(name, '').encode())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'127.0.0.1:{server.server_address[1]}'
        server.shutdown()


MEET = """
import jax
from ssanet_jax.distributed import processes
processes.initialize(None, None, None, cluster='gcetpu')
processes.barrier('met')
print(processes.current().index, processes.current().count, processes.gather_distinct([processes.current().index]))
"""


@pytest.mark.parametrize('endpoints', ['127.0.0.1,127.0.0.1', 'unknown:a:127.0.0.1,unknown:b:127.0.0.1'])
def test_the_workers_of_a_cloud_tpu_vm_find_each_other(endpoints):
    """Their environment names no worker, only the metadata server does: as a list of addresses, or of triples."""
    port = free_address().rpartition(':')[2]
    names = ('JAX_COORDINATOR_ADDRESS', 'TPU_WORKER_HOSTNAMES', 'TPU_SKIP_MDS_QUERY')
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {'JAX_COORDINATOR_PORT': port, 'JAX_PLATFORMS': 'cpu'}
    common = {'worker-network-endpoints': endpoints, 'tpu-env': "ACCELERATOR_TYPE: 'v5litepod-16'"}
    with contextlib.ExitStack() as stack:
        workers = []
        for index in range(2):
            address = stack.enter_context(metadata_server({'agent-worker-number': str(index), **common}))
            workers.append(
                subprocess.Popen(
                    [sys.executable, '-c', MEET],
                    cwd=ROOT,
                    env=environment | {'GCE_METADATA_IP': address},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        outputs = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert [out.splitlines()[-1] for out, _ in outputs] == ['0 2 [0, 1]', '1 2 [0, 1]']


def test_a_cluster_and_a_coordinator_contradict_each_other(monkeypatch):
    with pytest.raises(UserError, match='--cluster=gcetpu finds the processes, and --processes .* is set: give only'):
        processes.initialize(None, 2, None, 'gcetpu')
    monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', '127.0.0.1:1')
    with pytest.raises(UserError, match='and --coordinator .or its variable. is set'):
        processes.initialize(None, None, None, 'auto')


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(alone, tmp_path):
    workdir = tmp_path / 'run'
    children = start(workdir, 2, *RATES, '--config.stages[0].epochs=200', '--config.checkpoint_steps=1000')
    try:
        for line in children[0].stderr:
            if 'epoch 2/' in line:
                break
        children[1].send_signal(signal.SIGTERM)
        outputs = [child.communicate(timeout=PATIENCE) for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [75, 75], outputs
    steps = [int(path.name) for path in (workdir / 'scale_mining' / 'checkpoints').iterdir() if path.name.isdigit()]
    (step,) = steps  # nothing else is due
    triggers = Triggers(num_images=62, batch_size=8, epochs=200, checkpoint_steps=1000)
    assert step < triggers.num_steps and triggers.fetch_metrics(step)
