"""The network of a stage that goes on to the next one."""

from pathlib import Path
from typing import Any

from ssanet_jax.runs.checkpoints import Checkpoints, best_dir
from ssanet_jax.runs.files import read_json, write_json

_DAMAGED = 'restore it from a copy, or delete the folder of this stage and train it again'


class Best:
    """The network of a stage that goes on to the next one.

    Where validation images choose, it is the one with the highest accuracy among those considered (the
    first of equals), kept in `<stage>/best`; else the last.

    Args:
      workdir, stage: of the run.
      chooses: whether the results come from images that may be chosen on.
    """

    def __init__(self, workdir: Path, stage: str, *, chooses: bool):
        self._chooses, self._directory = chooses, best_dir(workdir, stage)
        self._file = workdir / stage / 'best.json'
        self.result: dict[str, Any] = read_json(self._file, _DAMAGED) or {}

    def consider(self, step: int, result: dict[str, Any], params: dict[str, Any], stats: dict[str, Any]) -> None:
        """Takes note of the result of the network at `step`, and keeps the network if it is the best so far."""
        if self._chooses and result['accuracy'] <= self.result.get('accuracy', -1):
            return
        self.result = {**result, 'step': step}
        if self._chooses:
            checkpoints = Checkpoints(self._directory, writes=True)
            checkpoints.save(step, {'params': params, 'stats': stats})
            checkpoints.close()
            write_json(self._file, self.result)
