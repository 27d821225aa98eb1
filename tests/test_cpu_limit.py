"""CPU limits of containers, from stand-ins for the files of the kernel."""

import os

import pytest

from ssanet_jax import cpu_limit
from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.data.pipeline import num_threads, read_options


@pytest.fixture(autouse=True)
def machine_of_64(monkeypatch):
    monkeypatch.setattr(cpu_limit.os, 'sched_getaffinity', lambda _: range(64))


def write_files(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


V2, V1 = '0::/\n', '5:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc\n'
TOP = 'sys/fs/cgroup'


@pytest.mark.parametrize(
    'group, files, expected',
    [
        # Version 2: a container with a namespace of its own, without a limit, and with fractions.
        (V2, {'cpu.max': '200000 100000\n'}, 2),
        (V2, {'cpu.max': 'max 100000\n'}, 64),
        (V2, {'cpu.max': '150000 100000\n'}, 2),
        (V2, {'cpu.max': '5000 100000\n'}, 1),
        (V2, {'cpu.max': '25000 10000\n'}, 3),
        # The limit of a group that contains that of the process, as of a Kubernetes pod or a systemd slice.
        ('0::/user.slice/job\n', {'user.slice/cpu.max': '300000 100000', 'user.slice/job/cpu.max': 'max 100000'}, 3),
        ('0::/a/b\n', {'a/cpu.max': '400000 100000', 'a/b/cpu.max': '800000 100000'}, 4),
        # The group's name on the host, which the container does not see.
        ('0::/kubepods/pod1/c1\n', {'cpu.max': '600000 100000'}, 6),
        # Version 1, alone and beside version 2.
        (V1, {'cpu,cpuacct/cpu.cfs_quota_us': '400000', 'cpu,cpuacct/cpu.cfs_period_us': '100000'}, 4),
        (V1, {'cpu/docker/abc/cpu.cfs_quota_us': '50000', 'cpu/docker/abc/cpu.cfs_period_us': '100000'}, 1),
        (V1, {'cpu/cpu.cfs_quota_us': '-1', 'cpu/cpu.cfs_period_us': '100000'}, 64),
        (V1, {'unified/docker/abc/cpu.max': '700000 100000'}, 7),
        # Files that are cut, or of another kind.
        (V2, {'cpu.max': ''}, 64),
        (V2, {'cpu.max': '200000'}, 64),
        (V2, {'cpu.max': '200000 0'}, 64),
        (V2, {'cpu.max': 'a b'}, 64),
        ('nonsense', {}, 64),
        ('', {}, 64),
        # More than the machine has.
        (V2, {'cpu.max': '9900000 100000'}, 64),
    ],
)
def test_limits_of_control_groups(group, files, expected, tmp_path):
    write_files(tmp_path, {'proc/self/cgroup': group, **{f'{TOP}/{name}': text for name, text in files.items()}})
    assert available_cpus(tmp_path) == expected


def test_affinity(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_limit.os, 'sched_getaffinity', lambda _: {3, 5, 9})
    assert available_cpus(tmp_path) == 3
    write_files(tmp_path, {'proc/self/cgroup': V2, f'{TOP}/cpu.max': '200000 100000'})
    assert available_cpus(tmp_path) == 2


def test_without_affinity(monkeypatch, tmp_path):
    monkeypatch.delattr(cpu_limit.os, 'sched_getaffinity')
    monkeypatch.setattr(os, 'cpu_count', lambda: 12)
    assert available_cpus(tmp_path) == 12
    monkeypatch.setattr(os, 'cpu_count', lambda: None)
    assert available_cpus(tmp_path) == 1


@pytest.mark.parametrize('limit, expected', [(1, 1), (3, 3), (64, 8)])
def test_reader_threads_follow_the_limit(limit, expected, tiny_config, monkeypatch):
    monkeypatch.setattr('ssanet_jax.data.pipeline.available_cpus', lambda: limit)
    tiny_config.data.num_workers = -1
    assert num_threads(tiny_config.data) == expected
    assert read_options(tiny_config.data, 8).num_threads == expected
    tiny_config.data.num_workers = 20  # as given
    assert num_threads(tiny_config.data) == 20
