"""Each loss against its formula, written again in numpy and float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ferbench.knobs import strategy_defaults
from ferbench.training.imbalance import STRATEGIES
from ferbench.training.losses import InfluenceLoss, Loss
from ferbench.training.treatment import Treatment

COUNTS = np.array([60, 30, 9, 1])
PRIOR = np.array([0.6, 0.3, 0.09, 0.01])
N, K = 12, 4
FEATURES = np.random.default_rng(2).normal(0, 1, (N, 5))
"""What the classifier was given."""

Array = NDArray[np.float64]


def log_softmax(z: Array) -> Array:
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def plain(z: Array, t: Array) -> float:
    return -(t * log_softmax(z)).sum(1).mean()


def weighted_by(weights: Array) -> Callable[[Array, Array], float]:
    def loss(z: Array, t: Array) -> float:
        return -(t * weights * log_softmax(z)).sum() / (t * weights).sum()

    return loss


def focal(gamma: float) -> Callable[[Array, Array], float]:
    def loss(z: Array, t: Array) -> float:
        log_p = log_softmax(z)
        return -(t * (1 - np.exp(log_p)) ** gamma * log_p).sum(1).mean()

    return loss


def cb_focal(gamma: float, weights: Array) -> Callable[[Array, Array], float]:
    def loss(z: Array, t: Array) -> float:
        log_p = log_softmax(z)
        return -(t * weights * (1 - np.exp(log_p)) ** gamma * log_p).sum() / (t * weights).sum()

    return loss


def vector_scaled(gamma: float, tau: float) -> Callable[[Array, Array], float]:
    return lambda z, t: plain((COUNTS / 60) ** gamma * z + tau * np.log(PRIOR), t)


def seesawed(p: float, q: float, at: Array | None = None) -> Callable[[Array, Array], float]:
    """With the factors that predictions decide taken at the logits `at`, as the gradient takes them."""

    def loss(z: Array, t: Array) -> float:
        probabilities, total = np.exp(log_softmax(z if at is None else at)), 0.0
        for n in range(len(z)):
            for i in range(K):
                terms = 0.0
                for j in range(K):
                    factor = min(1, (COUNTS[j] / COUNTS[i]) ** p)
                    factor *= max(1, (probabilities[n, j] / probabilities[n, i]) ** q)
                    terms += factor * np.exp(z[n, j])
                total -= t[n, i] * (z[n, i] - np.log(terms))
        return total / len(z)

    return loss


def label_aware(head: float, tail: float) -> Callable[[Array, Array], float]:
    eps = tail + (head - tail) * np.sin(np.pi / 2 * (COUNTS - 1) / 59)

    def loss(z: Array, t: Array) -> float:
        log_p = log_softmax(z)
        return -(t * (1 - eps) * log_p + t * eps * log_p.mean(1, keepdims=True)).sum(1).mean()

    return loss


def rebalanced(eps: float, weights: Array) -> Callable[[Array, Array], float]:
    def loss(z: Array, t: Array) -> float:
        log_p, total = log_softmax(z), 0.0
        for i in range(K):
            others = [j for j in range(K) if j != i]
            label = np.eye(K)[i] * (1 - eps)
            label[others] = eps * weights[others] / weights[others].sum()
            total -= (t[:, i] * (label * log_p).sum(1)).sum()
        return total / len(z)

    return loss


def with_margins(largest: float, scale: float) -> Callable[[Array, Array], float]:
    delta = largest * COUNTS**-0.25 / COUNTS.min() ** -0.25

    def loss(z: Array, t: Array) -> float:
        total = 0.0
        for n in range(len(z)):
            for i in range(K):
                own = np.exp(z[n, i] - scale * delta[i])
                others = sum(np.exp(z[n, j]) for j in range(K) if j != i)
                total -= t[n, i] * np.log(own / (own + others))
        return total / len(z)

    return loss


def influenced(weights: Array, at: Array | None = None) -> Callable[[Array, Array], float]:
    """With the images' weights taken at the logits `at`, as the gradient takes them."""

    def loss(z: Array, t: Array) -> float:
        p = np.exp(log_softmax(z if at is None else at))
        influence = np.abs(p - t).sum(1) * np.abs(FEATURES).sum(1)
        by_image = 1 / np.maximum(influence, 1e-3 * influence.mean())
        by_image /= by_image.mean()
        weighted = t * weights
        return -(by_image * (weighted * log_softmax(z)).sum(1)).sum() / weighted.sum()

    return loss


# the weights' common factor cancels
CASES: list[tuple[str, dict[str, float], Callable[[Array, Array], float]]] = [
    ("none", {}, plain),
    ("balanced_sampling", {"power": 0.0}, plain),
    ("inverse", {"power": 1.0, "clip": 0.0}, weighted_by(1 / PRIOR)),
    ("inverse", {"power": 0.7, "clip": 0.0}, weighted_by(PRIOR**-0.7)),
    ("sqrt_inverse", {"power": 0.5, "clip": 0.0}, weighted_by(PRIOR**-0.5)),
    ("effective_number", {"beta": 0.95, "clip": 0.0}, weighted_by(1 / (1 - 0.95**COUNTS))),
    ("focal", {"gamma": 2.0}, focal(2.0)),
    ("focal", {"gamma": 0.5}, focal(0.5)),
    ("focal", {"gamma": 0.0}, plain),
    ("logit_adjusted", {"tau": 1.0}, lambda z, t: plain(z + np.log(PRIOR), t)),
    ("logit_adjusted", {"tau": 1.5}, lambda z, t: plain(z + 1.5 * np.log(PRIOR), t)),
    ("logit_adjusted", {"tau": 0.0}, plain),
    ("balanced_softmax", {"tau": 1.0}, lambda z, t: plain(z + np.log(COUNTS), t)),
    ("class_balanced_focal", {"gamma": 2.0, "beta": 0.95, "clip": 0.0}, cb_focal(2.0, 1 / (1 - 0.95**COUNTS))),
    ("class_balanced_focal", {"gamma": 0.0, "beta": 0.0, "clip": 0.0}, plain),
    ("vector_scaling", {"gamma": 0.3, "tau": 1.2}, vector_scaled(0.3, 1.2)),
    ("vector_scaling", {"gamma": 0.0, "tau": 0.0}, plain),
    ("seesaw", {"p": 0.8, "q": 2.0}, seesawed(0.8, 2.0)),
    ("seesaw", {"p": 0.0, "q": 0.0}, plain),
    ("label_aware_smoothing", {"head": 0.4, "tail": 0.1}, label_aware(0.4, 0.1)),
    ("label_aware_smoothing", {"head": 0.0, "tail": 0.0}, plain),
    ("repeat_factor", {"threshold": 0.1}, plain),
    ("drw", {"beta": 0.95, "clip": 0.0, "start": 0.8}, weighted_by(1 / (1 - 0.95**COUNTS))),
    ("drs", {"power": 0.0, "start": 0.8}, plain),
    ("ldam", {"max_margin": 0.5, "scale": 4.0}, with_margins(0.5, 4.0)),
    ("ldam", {"max_margin": 0.0, "scale": 4.0}, plain),
    (
        "mek",
        {"smoothing": 0.3, "weight": 0.1, "beta": 0.95, "clip": 0.0},
        rebalanced(0.3, 1 / (1 - 0.95**COUNTS)),
    ),
    ("mek", {"smoothing": 0.0, "weight": 0.0, "beta": 0.0, "clip": 0.0}, plain),
    ("influence_balanced", {"power": 1.0, "clip": 0.0, "start": 0.5}, influenced(1 / PRIOR)),
    ("influence_balanced", {"power": 0.0, "clip": 0.0, "start": 0.5}, influenced(np.ones(K))),
]


def loss_of(name: str, params: dict[str, float] | None = None) -> Loss:
    return loss_for(name, COUNTS, strategy_defaults()[name] if params is None else params)


def loss_for(name: str, counts: NDArray[np.int64], params: dict[str, float]) -> Loss:
    """The loss at the end of a training."""
    loss = Treatment(STRATEGIES[name], counts, params, np.zeros(1, np.int64)).loss(10, 10)
    if isinstance(loss, InfluenceLoss):
        loss.features = torch.tensor(FEATURES, dtype=torch.float32)
    return loss


def targets_of(kind: str) -> Array:
    random = np.random.default_rng(1)
    hard = np.eye(K)[np.arange(N) % K]
    return {"hard": hard, "smoothed": hard * 0.9 + 0.1 / K, "mixed": random.dirichlet(np.ones(K), N)}[kind]


def slopes(loss: Callable[[Array, Array], float], z: Array, t: Array) -> Array:
    """Gradient by central differences."""
    gradient = np.zeros_like(z)
    for index in np.ndindex(*z.shape):
        step = np.zeros_like(z)
        step[index] = 1e-5
        gradient[index] = (loss(z + step, t) - loss(z - step, t)) / 2e-5
    return gradient


@pytest.mark.parametrize("kind", ["hard", "smoothed", "mixed"])
@pytest.mark.parametrize(("name", "params", "formula"), CASES)
def test_value_and_gradient(name, params, formula, kind):
    z, t = np.random.default_rng(0).normal(0, 3, (N, K)), targets_of(kind)
    logits = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    value = loss_of(name, params)(logits, torch.tensor(t, dtype=torch.float32))
    value.backward()
    assert value.shape == ()
    assert value.item() == pytest.approx(formula(z, t), rel=1e-5)
    if name == "seesaw" and params["q"]:
        # how hard a mistake counts is not learned
        formula = seesawed(**params, at=z)
    if name == "influence_balanced":
        formula = influenced(PRIOR ** -params["power"], at=z)
    np.testing.assert_allclose(logits.grad, slopes(formula, z, t), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", ["none", "inverse", "sqrt_inverse", "effective_number"])
def test_hard_labels_agree_with_torch(name):
    logits, labels = torch.randn(N, K), torch.arange(N) % K
    weights = {
        "none": np.ones(K),
        "inverse": 1 / PRIOR,
        "sqrt_inverse": PRIOR**-0.5,
        "effective_number": 1 / (1 - 0.9999**COUNTS),
    }
    reference = torch.nn.CrossEntropyLoss(torch.tensor(weights[name], dtype=torch.float32))
    ours = loss_of(name)(logits, torch.nn.functional.one_hot(labels, K).float())
    torch.testing.assert_close(ours, reference(logits, labels))


def test_focal_by_hand():
    # two classes with logits ln 3 and 0: p = 3/4 and 1/4, so (1/4)^2 ln 4/3 and (3/4)^2 ln 4
    logits, loss = torch.tensor([[np.log(3.0), 0.0]]), loss_of("focal", {"gamma": 2.0})
    assert loss(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(np.log(4 / 3) / 16)
    assert loss(logits, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(9 / 16 * np.log(4))


def test_focal_and_adjusted_losses_ignore_what_is_not_theirs():
    """Focal's p comes from the logits alone; the prior shifts every image's logits alike."""
    logits, targets = torch.randn(N, K), torch.tensor(targets_of("mixed"), dtype=torch.float32)
    one = loss_for("focal", COUNTS, {"gamma": 1.0})
    other = loss_for("focal", COUNTS[::-1].copy(), {"gamma": 1.0})
    assert torch.equal(one(logits, targets), other(logits, targets))
    balanced = loss_for("logit_adjusted", np.full(K, 25), {"tau": 1.0})
    torch.testing.assert_close(balanced(logits, targets), loss_of("none")(logits, targets))


@pytest.mark.parametrize("name", STRATEGIES.names)
@pytest.mark.parametrize("kind", ["hard", "smoothed"])
def test_large_bf16_logits_stay_finite(name, kind):
    rows = [[80, -80, -80, -80], [-80, 80, 80, -80], [80, 80, 80, 80], [0, 0, 0, -80]] * 3
    logits = torch.tensor(rows, dtype=torch.bfloat16, requires_grad=True)
    value = loss_of(name)(logits, torch.tensor(targets_of(kind), dtype=torch.float32))
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite() and logits.grad.isfinite().all()
    assert logits.grad.any()


@pytest.mark.parametrize("name", STRATEGIES.names)
def test_a_step_against_the_gradient_helps(name):
    logits = torch.randn(N, K, requires_grad=True)
    targets = torch.tensor(targets_of("smoothed"), dtype=torch.float32)
    loss = loss_of(name)
    before = loss(logits, targets)
    before.backward()
    assert loss(logits.detach() - 0.1 * logits.grad, targets) < before
