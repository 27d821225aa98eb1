"""Runs the scripts of launch/ without cloud or cluster: their PATH contains only stubs, which log their calls."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from commands import ROOT

LAUNCH = ROOT / 'launch'
SCRIPTS = ('local.sh', 'multi_gpu.sh', 'slurm.sbatch', 'tpu_vm.sh')
BASH = shutil.which('bash')
CONFIG, DIR, FLAG = '--config=configs/demo.py', '--workdir=shared/a run', '--config.data.dir=a b'
TRAIN = ['-m', 'ssanet_jax.main', CONFIG, DIR, FLAG]
TPU = {'PROJECT': 'birds', 'ZONE': 'us-west4-a', 'BUCKET': 'birds-runs', 'POLL': '0'}
GOOD = [CONFIG, '--workdir=shared/run']

# A tool that logs its name and arguments, quoted for the shell, and then runs the given commands.
STUB = """#!/bin/bash
printf -v line '%q ' "${{0##*/}}" "$@"; printf '%s\\n' "${{line% }}" >>"$LOG"
{commands}
"""


class Sandbox:
    """A folder of stubs that is the whole PATH, and the log of their calls."""

    def __init__(self, folder: Path):
        self.folder, self.bin, self.log = folder, folder / 'bin', folder / 'log'
        self.bin.mkdir()
        self.log.touch()

    def tool(self, name: str, commands: str = '') -> Path:
        """Adds a stub that logs its call and then runs the commands."""
        path = self.bin / name
        path.write_text(STUB.format(commands=commands))
        path.chmod(0o755)
        return path

    def real(self, *names: str) -> None:
        """Adds real tools."""
        for name in names:
            (self.bin / name).symlink_to(shutil.which(name))

    def copy_repository(self) -> None:
        """Copies the files of the repository that the scripts read."""
        shutil.copytree(LAUNCH, self.folder / 'launch')
        (self.folder / 'ssanet_jax').mkdir()
        (self.folder / 'ssanet_jax/main.py').touch()

    def start(self, script: str, *arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.Popen:
        path = LAUNCH / script  # or a copy of a script in another folder
        if cwd == ROOT and path.is_relative_to(ROOT):
            path = path.relative_to(ROOT)
        environment = {'PATH': str(self.bin), 'LOG': str(self.log), 'HOME': str(self.folder), **variables}
        return subprocess.Popen(
            [BASH, str(path), *arguments],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # pytest may ignore it
        )

    def run(self, script: str, *arguments: str, **variables) -> subprocess.CompletedProcess:
        process = self.start(script, *arguments, **variables)
        try:
            stdout, stderr = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def calls(self) -> list[list[str]]:
        return read_commands(self.log.read_text())


def read_commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines()]


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, 'the condition was not met in time'
        time.sleep(0.05)
