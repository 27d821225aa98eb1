"""How tests start the commands."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def train_command(workdir: Path) -> list[str]:
    """The command that trains the tiny configuration; to be run in `ROOT`."""
    config = Path(__file__).with_name('tiny_config.py')
    return [sys.executable, '-m', 'ssanet_jax.main', f'--config={config}', f'--workdir={workdir}']
