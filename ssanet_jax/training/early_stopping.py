"""Early stopping: a stage ends when evaluations on validation images have ceased to improve."""

import dataclasses

from ssanet_jax.runs.results import BestResult
from ssanet_jax.training.triggers import Triggers


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Decides after an evaluation whether its stage goes on.

    The decision depends on the best evaluation, which `BestCheckpoint` keeps on the disk, and on the step. A run that
    was killed therefore stops at the same step as one that was not.

    Attributes:
      patience: evaluations without a better one after which the stage stops; 0: never.
      triggers: the steps and evaluations of the stage.
    """

    patience: int
    triggers: Triggers

    def reason(self, step: int, best: BestResult | None) -> str:
        """Why the stage stops after a step, in words; '' if it goes on.

        Args:
          step: a step of the stage. Stages stop only at steps at which they are evaluated, and the last one is no
            early stop.
          best: the best evaluation up to this step; None before the first one.
        """
        if not self.patience or best is None or not self.triggers.evaluate(step):
            return ''
        if self.triggers.num_evaluations(step) - self.triggers.num_evaluations(best.step) < self.patience:
            return ''
        epoch, best_epoch = self.triggers.whole_epochs(step), self.triggers.whole_epochs(best.step)
        last = 'the last evaluation was not' if self.patience == 1 else f'none of the last {self.patience} was'
        return (
            f'stopped early after epoch {epoch} of {self.triggers.epochs}: {last} more accurate than that after epoch '
            f'{best_epoch}, {best.accuracy:.4f}'
        )
