"""Agreement of two labelings of the same items, which does not depend on the numbering of the labels."""

import numpy as np


def contingency_table(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Counts the items of each pair of labels.

    Args:
      first, second: integers `[n]`, two labels of each item.

    Returns:
      int64 `[A, B]`; labels that no item has get no row or column.
    """
    rows, columns = (np.unique(labels, return_inverse=True)[1] for labels in (first, second))
    table = np.zeros((rows.max(initial=-1) + 1, columns.max(initial=-1) + 1), np.int64)
    np.add.at(table, (rows, columns), 1)
    return table


def normalized_mutual_information(table: np.ndarray) -> float:
    """The mutual information of two labelings relative to the mean of their entropies.

    It equals `sklearn.metrics.normalized_mutual_info_score` with its default, the arithmetic mean.

    Args:
      table: `[A, B]`, from `contingency_table`.

    Returns:
      A number in [0, 1]: 1 if the labelings agree up to the numbering, 0 if they are independent.
    """
    if max(table.shape) <= 1:
        return 1.0  # both labelings are constant, or there are no items
    joint = table / table.sum()
    independent = joint.sum(1, keepdims=True) * joint.sum(0)
    used = joint > 0
    information = (joint[used] * np.log(joint[used] / independent[used])).sum()
    entropies = [-(share * np.log(share)).sum() for share in (joint.sum(0), joint.sum(1))]
    return float(np.clip(information / np.mean(entropies), 0, 1))


def adjusted_rand_index(table: np.ndarray) -> float:
    """The share of pairs of items on which two labelings agree, adjusted for chance.

    Hubert and Arabie: Comparing partitions (1985). It equals `sklearn.metrics.adjusted_rand_score`.

    Args:
      table: `[A, B]`, from `contingency_table`.

    Returns:
      1 if the labelings agree up to the numbering; 0 on average for random labelings; it may be negative.
    """
    num_pairs = lambda counts: float((counts * (counts - 1) // 2).sum())
    both, first, second = num_pairs(table), num_pairs(table.sum(1)), num_pairs(table.sum(0))
    total = num_pairs(table.sum())
    if both == first == second:
        return 1.0  # the labelings agree
    expected = first * second / total
    return (both - expected) / ((first + second) / 2 - expected)
