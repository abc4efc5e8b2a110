"""What can be done about rare classes: the STRATEGIES rows. No torch here.

`formulas` has the numbers, `losses` what is minimised, `treatment` when each part is at work. n_c is the number of
training images of class c, N their sum, K the number of classes, pi_c = n_c / N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ferbench.registry import Registry
from ferbench.training.formulas import (
    Counts,
    Params,
    Vector,
    effective_number_weights,
    inverse_weights,
    power_probabilities,
    repeat_factor_probabilities,
)

_LOSSES = "ferbench.training.losses:"


@dataclass(frozen=True)
class Strategy:
    """One way to treat rare classes; its knobs are in baselines/strategies.toml.

    A knob `start` is the share of the epochs before which its weights, sampling or influence are not at work.
    """

    name: str
    title: str
    paper: str
    formula: str
    """In a line, for `ferbench list strategies`."""
    loss: str = ""
    """"module:function" of (counts, params) -> `losses.Terms`; "": cross-entropy."""
    adjusts_prior: bool = False
    """Whether that loss itself makes up for how frequent classes are."""
    weights: Callable[[Counts, Params], Vector] | None = None
    """(counts, params) -> [K] class weights."""
    sampling: Callable[[Counts, Params], Vector] | None = None
    """(counts, params) -> [K] share of draws by class; None: every image once an epoch."""
    progressive: bool = False
    """Whether sampling begins with classes as they come and becomes what it is with the last epoch."""
    influence: bool = False
    """Whether each image counts less the more it pulls at the decision."""
    consistency: Callable[[Counts, Params], Vector] | None = None
    """(counts, params) -> [K] class weights with which attention must be the same for mirror images."""
    mixing: Literal["", "remix", "cmo"] = ""
    """How images are mixed with an eye on their classes."""
    head: Literal["", "normalised", "scaled"] = ""
    """What stands in the classifier's place."""
    decoupled: bool = False
    """Whether it changes the classifier of a run without a strategy; names as in `spec.DECOUPLED`."""
    posthoc: str = ""
    """"module:function" of (val predictions, counts, params) -> [K] shift of log-probabilities, for what is done after
    training; "" trains. Names of such rows begin with `spec.POSTHOC`."""

    @property
    def corrections(self) -> list[str]:
        """What in it makes up for how frequent classes are."""
        has = {
            "class weights": self.weights is not None,
            "sampling": self.sampling is not None,
            "a loss with the class prior in it": self.adjusts_prior,
        }
        return [what for what, is_there in has.items() if is_there]


STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    [
        Strategy("none", "none", "", "cross-entropy as it is"),
        Strategy(
            "inverse",
            "inverse class weights",
            "classic",
            "w_c = (N / (K n_c))^power, clipped, mean 1",
            weights=inverse_weights,
        ),
        Strategy(
            "sqrt_inverse",
            "square-root class weights",
            "classic",
            "w_c = (N / (K n_c))^power with power 1/2, clipped, mean 1",
            weights=inverse_weights,
        ),
        Strategy(
            "effective_number",
            "effective-number class weights",
            "Cui et al. 2019, arXiv 1901.05555",
            "w_c = (1 - b) / (1 - b^n_c), clipped, mean 1",
            weights=effective_number_weights,
        ),
        Strategy(
            "drw",
            "deferred re-weighting",
            "Cao et al. 2019, arXiv 1906.07413",
            "w_c = (1 - b) / (1 - b^n_c) in the epochs after start",
            weights=effective_number_weights,
        ),
        Strategy(
            "balanced_sampling",
            "balanced sampling",
            "Kang et al. 2020, arXiv 1910.09217",
            "classes drawn in proportion to n_c^power",
            sampling=power_probabilities,
        ),
        Strategy(
            "progressive_sampling",
            "progressively balanced sampling",
            "Kang et al. 2020, arXiv 1910.09217",
            "classes drawn by (1 - t) pi_c + t n_c^power / sum, t from 0 to 1 over the epochs",
            sampling=power_probabilities,
            progressive=True,
        ),
        Strategy(
            "drs",
            "deferred re-sampling",
            "Cao et al. 2019, arXiv 1906.07413",
            "classes drawn in proportion to n_c^power in the epochs after start",
            sampling=power_probabilities,
        ),
        Strategy(
            "repeat_factor",
            "repeat-factor sampling",
            "Gupta et al. 2019, arXiv 1908.03195",
            "classes drawn in proportion to n_c max(1, sqrt(t / pi_c))",
            sampling=repeat_factor_probabilities,
        ),
        Strategy(
            "focal",
            "focal loss",
            "Lin et al. 2017, arXiv 1708.02002",
            "-(1 - p_y)^gamma log p_y",
            _LOSSES + "focal",
        ),
        Strategy(
            "class_balanced_focal",
            "class-balanced focal loss",
            "Cui et al. 2019, arXiv 1901.05555",
            "-w_y (1 - p_y)^gamma log p_y, w_c = (1 - b) / (1 - b^n_c), clipped, mean 1",
            _LOSSES + "focal",
            weights=effective_number_weights,
        ),
        Strategy(
            "ldam",
            "label-distribution-aware margins",
            "Cao et al. 2019, arXiv 1906.07413",
            "cross-entropy of s (cos_c - d_y [c = y]), d_c in proportion to n_c^(-1/4)",
            _LOSSES + "margin",
            head="normalised",
        ),
        Strategy(
            "logit_adjusted",
            "logit-adjusted loss",
            "Menon et al. 2021, arXiv 2007.07314",
            "cross-entropy of z + tau log pi",
            _LOSSES + "logit_adjusted",
            adjusts_prior=True,
        ),
        Strategy(
            "balanced_softmax",
            "balanced softmax",
            "Ren et al. 2020, arXiv 2007.10740",
            "cross-entropy of z + tau log pi with tau 1",
            _LOSSES + "logit_adjusted",
            adjusts_prior=True,
        ),
        Strategy(
            "vector_scaling",
            "vector-scaling loss",
            "Kini et al. 2021, arXiv 2103.01550",
            "cross-entropy of (n_c / n_max)^gamma z_c + tau log pi_c",
            _LOSSES + "vector_scaling",
            adjusts_prior=True,
        ),
        Strategy(
            "seesaw",
            "Seesaw loss",
            "Wang et al. 2021, arXiv 2008.10032",
            "softmax terms times min(1, (n_j / n_i)^p) max(1, (p_j / p_i)^q)",
            _LOSSES + "seesaw",
            adjusts_prior=True,
        ),
        Strategy(
            "influence_balanced",
            "influence-balanced loss",
            "Park et al. 2021, arXiv 2110.02444",
            "cross-entropy times w_y / (|p - y|_1 |h|_1) in the epochs after start, w_c in proportion to n_c^-power",
            weights=inverse_weights,
            influence=True,
        ),
        Strategy(
            "label_aware_smoothing",
            "label-aware smoothing",
            "Zhong et al. 2021, arXiv 2104.00466",
            "label smoothing from tail to head with the class's size",
            _LOSSES + "label_aware_smoothed",
        ),
        Strategy(
            "mek",
            "mining extra knowledge",
            "Zhang et al. 2023, arXiv 2310.19636",
            "smoothing shared out by w_c, plus sum_c w_c |M_c - mirrored M_c of the mirror image|^2, M attention",
            _LOSSES + "rebalanced_smoothed",
            adjusts_prior=True,
            consistency=effective_number_weights,
        ),
        Strategy(
            "remix",
            "Remix",
            "Chou et al. 2020, arXiv 2007.03943",
            "mixup whose label is the rarer class's where n ratio >= kappa and its share is at least 1 - tau",
            mixing="remix",
        ),
        Strategy(
            "cmo",
            "context-rich minority oversampling",
            "Park et al. 2022, arXiv 2112.00412",
            "CutMix of patches of images drawn in proportion to n_c^power per class onto the batch",
            mixing="cmo",
        ),
        Strategy(
            "crt",
            "classifier re-training",
            "Kang et al. 2020, arXiv 1910.09217",
            "a fresh classifier on the frozen backbone of the run without a strategy, classes drawn by n_c^power",
            sampling=power_probabilities,
            decoupled=True,
        ),
        Strategy(
            "lws",
            "learnable weight scaling",
            "Kang et al. 2020, arXiv 1910.09217",
            "f_c w_c, only f learned, on the frozen run without a strategy, classes drawn by n_c^power",
            sampling=power_probabilities,
            head="scaled",
            decoupled=True,
        ),
        Strategy(
            "tau_norm",
            "tau-normalised classifier",
            "Kang et al. 2020, arXiv 1910.09217",
            "w_c / |w_c|^tau of the run without a strategy, without biases, tau chosen on val",
            decoupled=True,
        ),
        Strategy(
            "posthoc_logit_adjustment",
            "post-hoc logit adjustment",
            "Menon et al. 2021, arXiv 2007.07314",
            "z - tau log pi after training, tau chosen on val",
            posthoc="ferbench.posthoc:logit_adjustment",
        ),
        Strategy(
            "posthoc_class_bias",
            "post-hoc class biases",
            "classic",
            "z + b after training, b chosen on val for macro-F1",
            posthoc="ferbench.posthoc:class_bias",
        ),
    ],
)
