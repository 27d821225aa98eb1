"""The number of CPUs that this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = 'sys/fs/cgroup'


def available_cpus(root: Path = Path('/')) -> int:
    """The CPUs that this process may use: those of its affinity mask, or fewer if a control group limits their time.

    Python has the affinity mask only (`os.process_cpu_count`). Containers are limited by a quota instead (`docker run
    --cpus`, Kubernetes `limits.cpu`): with more threads than that, the kernel stops all of them for a part of each
    tenth of a second. A fraction is rounded up, as the JDK and Go do.

    Args:
      root: the folder that holds `proc` and `sys`.

    Returns:
      The number, at least 1.
    """
    # `os.process_cpu_count` needs Python 3.13; macOS has no affinity.
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return max(1, min([cpus, *map(math.ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """The limits, in CPUs, of the control group of this process and of all that contain it."""
    for line in _read(root / 'proc/self/cgroup').splitlines():
        _, _, rest = line.partition(':')
        controllers, _, name = rest.partition(':')
        if not controllers:  # version 2, also beside version 1
            mounts, quota = ['', 'unified'], _quota_v2
        elif 'cpu' in controllers.split(','):
            mounts, quota = [controllers, 'cpu', 'cpu,cpuacct'], _quota_v1
        else:
            continue
        for mount in dict.fromkeys(mounts):
            top = root / _CGROUPS / mount
            group = top / name.lstrip('/')
            # In a container, the name may be that on the host, where its own group is at the top.
            for folder in dict.fromkeys([group, *group.parents, top]):
                if (folder == top or top in folder.parents) and (limit := quota(folder)):
                    yield limit


def _quota_v2(folder: Path) -> float | None:
    """Reads the limit from `cpu.max`: '150000 100000' means 1.5 CPUs, and 'max 100000' no limit."""
    return _ratio(*(_read(folder / 'cpu.max').split() + ['', ''])[:2])


def _quota_v1(folder: Path) -> float | None:
    """Reads the limit from `cpu.cfs_quota_us` and `cpu.cfs_period_us`; a quota of -1 means no limit."""
    return _ratio(*(_read(folder / f'cpu.cfs_{name}_us').strip() for name in ('quota', 'period')))


def _ratio(quota: str, period: str) -> float | None:
    if not quota.isdecimal() or not period.isdecimal() or not int(quota) or not int(period):
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ''
