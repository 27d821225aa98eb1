"""Images that are probably labeled wrongly, by predictions of networks that have not seen them."""

from typing import NamedTuple

import numpy as np

MAX_PROBABILITY = 0.02  # of the label of an image that is listed


class LabelError(NamedTuple):
    """An image that another class fits better than its own."""

    position: int  # of the image among those given
    label: int  # index of the class that it is labeled as
    suggested: int  # index of the class that it seems to show
    label_probability: float
    suggested_probability: float


def find_label_errors(
    probabilities: np.ndarray, labels: np.ndarray, max_probability: float = MAX_PROBABILITY
) -> list[LabelError]:
    """Finds images whose label has a very low probability.

    Probabilities have to be calibrated and held out: of the images whose label has the probability p, a share p is then
    labeled correctly as far as the network can tell. Confident learning (Northcutt, Jiang and Chuang, JAIR 2021) also
    lists images that the network merely confuses; with classes as similar as those of birds, these are most of its
    list.

    Args:
      probabilities: float `[n, N]`, by networks that were not trained on the image.
      labels: int `[n]`.
      max_probability: images whose label has a lower probability are listed.

    Returns:
      The images, those with the largest odds of the suggested class against the label first.
    """
    rows = np.arange(len(labels))
    suggested = probabilities.argmax(-1)
    of_label, of_suggested = probabilities[rows, labels], probabilities[rows, suggested]
    order = np.argsort(of_label / np.maximum(of_suggested, 1e-12), kind='stable')
    return [
        LabelError(int(i), int(labels[i]), int(suggested[i]), float(of_label[i]), float(of_suggested[i]))
        for i in order
        if of_label[i] < max_probability and suggested[i] != labels[i]
    ]
