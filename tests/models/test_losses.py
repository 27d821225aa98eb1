"""Equations 1, 2, 4, 5 and the ranking loss, against loops written from the paper."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.models import losses

quick = settings(deadline=None, max_examples=15)
SHAPES = st.sampled_from([(1, 1, 3), (1, 4, 6), (2, 2, 2), (3, 4, 5)])  # B, K, D; few, as each is compiled
mac_mean = jax.jit(losses.mac_loss)
mac_sum = jax.jit(lambda features: losses.mac_loss(features, reduction='sum'))
mac_gradient = jax.jit(jax.grad(losses.mac_loss))
ranking = jax.jit(losses.ranking_loss)


def cosines(features):
    """S[xi, tau, j, n], the cosine of part j of image xi and part n of image tau."""
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    return np.einsum('xjd,tnd->xtjn', unit, unit)


def equation_2(s):
    """Eq. 2 for one pair of images with positives n = j and negatives m != j, as a sum of exponentials."""
    parts = len(s)
    total = 0.0
    for j in range(parts):
        inner = 1.0
        for m in range(parts):
            if m != j:
                inner += np.exp(-s[j, j] + s[j, m])
        total += np.log(inner)
    return total / parts


def equations_4_and_5(s):
    """dL/dS of one pair: Eq. 4 on the diagonal (with its sign, and 1 / sum exp), Eq. 5 elsewhere, both over K."""
    parts = len(s)
    omega = np.zeros_like(s)
    for j in range(parts):
        for z in range(parts):
            negatives = sum(np.exp(s[j, m] - s[j, z]) for m in range(parts) if m != j)
            positive = np.exp(s[j, z] - s[j, j])  # the only positive is n = j
            if j != z:
                omega[j, z] = 1 / (1 / positive + negatives)
            elif parts > 1:
                omega[j, z] = -1 / (1 / negatives + positive)
    return omega / parts


def mac_by_loops(features, temperature=1.0):
    s = cosines(features) / temperature
    return [equation_2(s[x, t]) for x in range(len(s)) for t in range(len(s))]


def mac_gradient_by_hand(features):
    """Equation 3: the weights of Eq. 4 and 5 times the derivative of the cosine, mean over ordered pairs."""
    batch, parts, _ = features.shape
    s = cosines(features)
    norm = np.linalg.norm(features, axis=-1, keepdims=True)
    unit = features / norm
    gradient = np.zeros_like(features)
    for x in range(batch):
        for t in range(batch):
            omega = equations_4_and_5(s[x, t])
            for j in range(parts):
                for n in range(parts):
                    cosine = s[x, t, j, n]
                    gradient[x, j] += omega[j, n] * (unit[t, n] - cosine * unit[x, j]) / norm[x, j]
                    gradient[t, n] += omega[j, n] * (unit[x, j] - cosine * unit[t, n]) / norm[t, n]
    return gradient / batch**2


def ranking_by_loops(scores, part_losses):
    total = 0.0
    for s, ce in zip(scores, part_losses):
        for i in range(len(s)):
            for j in range(len(s)):
                if ce[j] > ce[i]:
                    total += max(0.0, 1 - s[i] + s[j])
    return total / len(scores)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


class LossVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(1.0, 0.2)
    def test_mac_is_the_mean_of_equation_2_over_ordered_pairs(self, temperature):
        features = normal(0, 3, 4, 8)
        value = self.variant(lambda f: losses.mac_loss(f, temperature=temperature))(features)
        chex.assert_shape(value, ())
        np.testing.assert_allclose(value, np.mean(mac_by_loops(np.float64(features), temperature)), rtol=1e-5)

    @chex.variants(with_jit=True, without_jit=True)
    def test_ranking_is_the_sum_over_wrongly_ordered_pairs(self):
        scores, part_losses = normal(1, 5, 6), np.abs(normal(2, 5, 6))
        value = self.variant(losses.ranking_loss)(scores, part_losses)
        chex.assert_shape(value, ())
        np.testing.assert_allclose(value, ranking_by_loops(scores, part_losses), rtol=1e-5)


@quick
@given(SHAPES, st.integers(0, 2**32 - 1))
def test_mac_sum_is_the_literal_sum(shape, seed):
    features = normal(seed, *shape)
    pairs = mac_by_loops(np.float64(features))
    assert len(pairs) == shape[0] ** 2
    np.testing.assert_allclose(mac_sum(features), np.sum(pairs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mac_mean(features), np.mean(pairs), rtol=1e-4, atol=1e-5)


def test_mac_of_one_image_counts_its_pair_with_itself():
    features = normal(3, 1, 4, 6)
    s = cosines(np.float64(features))[0, 0]
    np.testing.assert_allclose(mac_mean(features), equation_2(s), rtol=1e-5)


def test_mac_of_orthonormal_parts_has_a_known_value():
    features = np.broadcast_to(np.eye(4, dtype=np.float32), (2, 4, 4))
    np.testing.assert_allclose(mac_mean(features), np.log(1 + 3 * np.exp(-1.0)), rtol=1e-6)


def test_mac_of_one_part_is_zero():
    chex.assert_trees_all_close(mac_mean(normal(4, 1, 1, 3)), 0.0, atol=1e-6)


def test_mac_sees_directions_only():
    features = normal(5, 3, 4, 5)
    scaled = features * (np.abs(normal(6, 3, 4, 1)) + 0.1) * 10
    chex.assert_trees_all_close(mac_mean(features), mac_mean(scaled), rtol=1e-5)


def test_mac_falls_when_parts_correspond():
    """The same parts in the same order cost less than in another order."""
    image = normal(7, 4, 4)
    ordered = mac_mean(np.stack([image, image]))
    shuffled = mac_mean(np.stack([image, image[[1, 2, 3, 0]]]))
    assert ordered < shuffled


@quick
@given(SHAPES, st.integers(0, 2**32 - 1))
def test_mac_gradient_is_equations_4_and_5(shape, seed):
    # A part of very small norm has a huge gradient; unit vectors times 1..2 stay clear of it.
    raw = np.float64(normal(seed, *shape))
    features = raw / np.linalg.norm(raw, axis=-1, keepdims=True)
    features *= np.random.default_rng(seed).uniform(1, 2, (*shape[:2], 1))
    expected = mac_gradient_by_hand(features).astype(np.float32)
    chex.assert_trees_all_close(mac_gradient(features.astype(np.float32)), expected, atol=2e-6)


def test_equations_4_and_5_are_the_derivative_of_equation_2():
    """Checks the oracle: Eq. 4 and 5 against finite differences of the loops."""
    s = np.float64(normal(8, 4, 4))
    numeric = np.zeros_like(s)
    for index in np.ndindex(s.shape):
        step = np.zeros_like(s)
        step[index] = 1e-6
        numeric[index] = (equation_2(s + step) - equation_2(s - step)) / 2e-6
    np.testing.assert_allclose(equations_4_and_5(s), numeric, atol=1e-8)
    assert (np.diag(numeric) < 0).all() and (numeric[~np.eye(4, dtype=bool)] > 0).all()


def test_mac_gradient_reaches_the_diagonal():
    """For eight orthonormal parts in two images, the gradient along the matching part comes from S_jj only.

    Two ordered pairs contribute, each with weight 1/4; Eq. 4 over K gives -(1 / K) (K - 1) / K if all S are 0. Pairs
    of an image with itself contribute nothing. As printed (n != j), the component would be zero.
    """
    batch, parts = 2, 4
    features = np.eye(8, dtype=np.float32).reshape(batch, parts, 8)
    gradient = np.array(mac_gradient(features))
    for j in range(parts):
        expected = -2 / batch**2 / parts * (parts - 1) / parts
        np.testing.assert_allclose(gradient[0, j] @ features[1, j], expected, rtol=1e-5)
        np.testing.assert_allclose(gradient[1, j] @ features[0, j], expected, rtol=1e-5)
        # Another part of the other image repels by Eq. 5, twice (once as j, once as n).
        np.testing.assert_allclose(
            gradient[0, j] @ features[1, (j + 1) % parts], 2 / batch**2 / parts / parts, rtol=1e-5
        )


def test_mac_gradient_of_a_dead_part_is_finite():
    """ReLU features can be all zero; the gradient must stay finite."""
    features = np.abs(normal(9, 3, 4, 5))
    features[0, 1] = 0
    value, gradient = mac_mean(features), mac_gradient(features)
    chex.assert_tree_all_finite((value, gradient))


def test_mac_with_a_low_temperature_does_not_overflow():
    features = normal(10, 2, 4, 8)
    value, gradient = jax.jit(jax.value_and_grad(lambda f: losses.mac_loss(f, temperature=1e-3)))(features)
    chex.assert_tree_all_finite((value, gradient))
    s = cosines(np.float64(features)) / 1e-3
    limit = np.mean(s.max(-1) - np.einsum('xtjj->xtj', s))  # logsumexp is the maximum here
    np.testing.assert_allclose(value, limit, rtol=1e-2)


@quick
@given(st.sampled_from([(1, 1), (3, 4), (2, 6)]), st.integers(0, 2**32 - 1))
def test_ranking_against_loops_with_ties(shape, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 4, shape).astype(np.float32) / 2
    part_losses = rng.integers(0, 4, shape).astype(np.float32)  # equal losses rank nothing
    np.testing.assert_allclose(ranking(scores, part_losses), ranking_by_loops(scores, part_losses), rtol=1e-6)


def test_ranking_is_zero_when_the_order_is_right_by_the_margin():
    part_losses = np.array([[0.1, 0.5, 0.9, 2.0]], np.float32)
    scores = np.array([[3.0, 2.0, 1.0, 0.0]], np.float32)
    assert losses.ranking_loss(scores, part_losses) == 0
    # Half a margin misses 1/2 on each of the three neighboring pairs and nothing on the others.
    np.testing.assert_allclose(losses.ranking_loss(scores / 2, part_losses), 1.5)


def test_ranking_of_a_wrong_order_has_a_known_value():
    # The better box (lower loss) has the lower score: 1 - 0 + 2.
    assert losses.ranking_loss(np.float32([[0.0, 2.0]]), np.float32([[0.3, 0.4]])) == 3
    assert losses.ranking_loss(np.float32([[0.0, 2.0]]), np.float32([[0.4, 0.3]])) == 0


def test_ranking_gradient_reaches_scores_only():
    scores, part_losses = normal(11, 3, 6), np.abs(normal(12, 3, 6))
    towards_scores, towards_losses = jax.grad(losses.ranking_loss, argnums=(0, 1))(scores, part_losses)
    chex.assert_trees_all_equal(towards_losses, jnp.zeros_like(towards_losses))
    expected = np.zeros((3, 6))
    for b in range(3):
        for i in range(6):
            for j in range(6):
                if part_losses[b, j] > part_losses[b, i] and 1 - scores[b, i] + scores[b, j] > 0:
                    expected[b, i] -= 1 / 3
                    expected[b, j] += 1 / 3
    assert np.abs(expected).max() > 0
    chex.assert_trees_all_close(towards_scores, expected.astype(np.float32), atol=1e-6)


def test_ranking_stops_the_gradient_of_the_part_losses():
    """The part classifier is trained by its own cross-entropy only."""

    def total(weight):
        return losses.ranking_loss(normal(13, 2, 4), jnp.square(weight))

    chex.assert_trees_all_equal(jax.grad(total)(normal(14, 2, 4)), jnp.zeros((2, 4)))


@pytest.mark.parametrize('shift', [-5.0, 7.0])
def test_ranking_depends_on_differences_of_scores_only(shift):
    scores, part_losses = normal(15, 2, 6), np.abs(normal(16, 2, 6))
    chex.assert_trees_all_close(
        losses.ranking_loss(scores, part_losses), losses.ranking_loss(scores + shift, part_losses), rtol=1e-5
    )
