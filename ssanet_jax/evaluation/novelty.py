"""Whether an image shows none of the classes: out-of-distribution detection by the network's own logits.

Two signs are added. An image between the classes has a distribution of high entropy. An image of something else often
has a confident one, but a strange one: its runners-up are classes that no image of the predicted class resembles. It
lies far from all held-out images in the space of log-probabilities, like the distance to the nearest neighbor in the
space of features (Sun, Ming, Zhu and Li, "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022).
`docs/trust.md` compares this score with others.
"""

import numpy as np
from scipy.special import log_softmax

from ssanet_jax.runs.held_out import HeldOutPredictions

MIN_IMAGES = 20  # one in twenty known images is taken for a stranger
_MAX_REFERENCES = 5000
_CHUNK = 1000  # images that are compared at a time
_EPSILON = 1e-6


class NoveltyDetector:
    """Compares predictions with those for held-out images of the known classes.

    Args:
      log_probabilities: float `[n, N]`, of images that the network was not trained on; a random part is used if there
        are many.
      seed: draws that part.

    Raises:
      ValueError: fewer than `MIN_IMAGES` images.
    """

    def __init__(self, log_probabilities: np.ndarray, seed: int = 0):
        if len(log_probabilities) < MIN_IMAGES:
            raise ValueError(f'{len(log_probabilities)} held-out images are too few to tell what is unlike them')
        if len(log_probabilities) > _MAX_REFERENCES:
            chosen = np.random.default_rng(seed).choice(len(log_probabilities), _MAX_REFERENCES, replace=False)
            log_probabilities = log_probabilities[np.sort(chosen)]
        known = log_softmax(np.asarray(log_probabilities, np.float32), -1)
        self._references = _directions(known)  # [n, N]
        signs = np.stack([_entropy(known), self._distance(known, without_itself=True)])  # [2, n]
        self._mean, self._deviation = signs.mean(1), signs.std(1) + _EPSILON
        self._known = np.sort(self._standardize(signs))

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """All that the detector depends on, for other implementations of it."""
        return {
            'references': self._references,
            'mean': self._mean,
            'deviation': self._deviation,
            'known': self._known,
        }

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """How novel images are.

        Args:
          logits: float `[B, N]`.

        Returns:
          float `[B]` in [0, 1]: the share of the held-out images that are less novel.
        """
        return np.searchsorted(self._known, self.score(logits)) / len(self._known)

    def score(self, logits: np.ndarray) -> np.ndarray:
        """The sum of both signs, `[B]`, which also ranks images that are more novel than all held-out ones."""
        found = log_softmax(np.asarray(logits, np.float32), -1)
        return self._standardize(np.stack([_entropy(found), self._distance(found)]))

    def _standardize(self, signs: np.ndarray) -> np.ndarray:
        """`[2, B]` -> `[B]`: the sum of both signs, each in standard deviations of the held-out images."""
        return ((signs - self._mean[:, None]) / self._deviation[:, None]).sum(0)

    def _distance(self, log_probabilities: np.ndarray, *, without_itself: bool = False) -> np.ndarray:
        """The cosine distance `[B]` to the nearest reference."""
        directions = _directions(log_probabilities)
        nearest = np.empty(len(directions), np.float32)
        for start in range(0, len(directions), _CHUNK):
            similarity = directions[start : start + _CHUNK] @ self._references.T  # [b, n]
            if without_itself:
                rows = np.arange(len(similarity))
                similarity[rows, start + rows] = -np.inf
            nearest[start : start + _CHUNK] = similarity.max(1)
        return 1 - nearest


def novelty_detector(held_out: HeldOutPredictions | None) -> NoveltyDetector | None:
    """A detector for the network that these predictions come from; None if there are too few."""
    if held_out is None or len(held_out.labels) < MIN_IMAGES:
        return None
    return NoveltyDetector(held_out.log_probabilities)


def _entropy(log_probabilities: np.ndarray) -> np.ndarray:
    return -(np.exp(log_probabilities) * log_probabilities).sum(-1)


def _directions(log_probabilities: np.ndarray) -> np.ndarray:
    """Unit vectors: log-probabilities without their mean, so that only their differences count."""
    centered = log_probabilities - log_probabilities.mean(-1, keepdims=True)
    return centered / np.maximum(np.linalg.norm(centered, axis=-1, keepdims=True), _EPSILON)
