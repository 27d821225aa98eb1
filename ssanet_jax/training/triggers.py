"""When a stage fetches metrics, evaluates and saves a checkpoint."""

import dataclasses

from ssanet_jax.data.pipeline import num_steps

FETCH_STEPS = 20  # steps between two fetches of metrics, so that the host rarely waits for the devices


@dataclasses.dataclass(frozen=True)
class Triggers:
    """Decides after each step whether to fetch metrics, evaluate or save a checkpoint.

    Steps count from 1 within the stage; resuming does not restart the count.
    """

    num_images: int  # images per epoch
    batch_size: int
    epochs: float
    first_step: int = 0  # steps that were done before this process started
    eval_epochs: int = 0  # epochs between two evaluations; 0: after the last step only
    checkpoint_steps: int = 0  # steps between two checkpoints; 0: one per epoch

    @property
    def num_steps(self) -> int:
        """Steps of the whole stage."""
        return num_steps(self.epochs, self.num_images, self.batch_size)

    def epochs_done(self, step: int) -> float:
        """Epochs that are over after `step` steps. The last step may end within an epoch."""
        return self.epochs if step == self.num_steps else self.whole_epochs(step)

    def epoch_ends(self, step: int) -> bool:
        """Whether this step reads the last image of an epoch."""
        return self.whole_epochs(step) > self.whole_epochs(step - 1)

    def fetch_metrics(self, step: int) -> bool:
        """At regular steps, after the first one, and before anything that reads metrics or saves the state."""
        return step % FETCH_STEPS == 0 or self.restart_clock(step)

    def evaluate(self, step: int) -> bool:
        """After every `eval_epochs` epochs, but not after the last step, which is always evaluated."""
        due = self.eval_epochs and self.whole_epochs(step) % self.eval_epochs == 0
        return bool(due) and self.epoch_ends(step) and step < self.num_steps

    def num_evaluations(self, step: int) -> int:
        """Evaluations that `eval_epochs` has asked for in the first `step` steps."""
        return self.whole_epochs(step) // self.eval_epochs if self.eval_epochs else 0

    def save(self, step: int) -> bool:
        """After every `checkpoint_steps` steps or every epoch, and after the last step."""
        due = step % self.checkpoint_steps == 0 if self.checkpoint_steps else self.epoch_ends(step)
        return due or step == self.num_steps

    def restart_clock(self, step: int) -> bool:
        """After all that images per second should not include: compilation, evaluations and saves."""
        return self.is_first(step) or self.epoch_ends(step) or self.save(step)

    def is_first(self, step: int) -> bool:
        """Whether this is the first step of this process, which compiles the program."""
        return step == self.first_step + 1

    def whole_epochs(self, step: int) -> int:
        """Number of passes over all images that are over after `step` steps."""
        return step * self.batch_size // self.num_images
