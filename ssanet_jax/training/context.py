"""The context of a training stage."""

import dataclasses
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.distributed import processes
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.ssanet import SSANet
from ssanet_jax.training.time_left import ImageCounts, views_after

AUTO, ON, OFF = 'auto', 'on', 'off'  # values of `config.async_checkpointing`


@dataclasses.dataclass(frozen=True)
class StageContext:
    """A stage and the run that it belongs to."""

    config: ConfigDict  # the run's configuration
    index: int  # position of the stage in `config.stages`
    model: SSANet  # as it was built: gives the structure and the initial weights
    dataset: Dataset
    workdir: Path
    mesh: Mesh  # the devices, arranged for training
    console: Console

    @property
    def stage(self) -> ConfigDict:
        """The stage's settings."""
        return self.config.stages[self.index]

    @property
    def directory(self) -> Path:
        """The stage's folder in the work directory."""
        return self.workdir / self.stage.name

    @property
    def active(self) -> frozenset[str]:
        """Groups trained by the end of the stage."""
        return active_groups(self.config.stages, self.index)

    @property
    def seed(self) -> int:
        """Seed of the order and the augmentation of the stage's images."""
        return self.config.seed + self.index

    @property
    def steps_per_epoch(self) -> float:
        """Steps per epoch. Epochs end within a step if the batch size does not divide the number of images."""
        return len(self.dataset.train) / self.config.data.batch_size

    @property
    def saves_asynchronously(self) -> bool:
        """Whether the stage trains on while a checkpoint is written; on a CPU, the write would take its cores."""
        setting = self.config.get('async_checkpointing', AUTO)
        on_accelerators = self.mesh.devices.flat[0].platform != 'cpu'
        return setting == ON or (setting == AUTO and on_accelerators and processes.current().count == 1)

    def views_after(self, task: str) -> float:
        """The work of the run after a task of this stage, in views of the task (`time_left.py`)."""
        validation = self.dataset.validation
        counts = ImageCounts(
            len(self.dataset.train), len(self.dataset.test), 0 if validation is None else len(validation)
        )
        return views_after(self.config, self.index, task, counts)

    @property
    def split(self) -> str:
        """Name of the images that the stage is evaluated on."""
        return 'test' if self.dataset.validation is None else 'validation'

    @property
    def evaluation(self) -> str:
        """What an evaluation does, in words."""
        source = self.dataset.test if self.dataset.validation is None else self.dataset.validation
        return f'evaluating {len(source)} {self.split} images'

    def print(self, message: str) -> None:
        """Prints a line about the stage."""
        self.console.print(f'{self.stage.name}: {message}', highlight=False, soft_wrap=True)
