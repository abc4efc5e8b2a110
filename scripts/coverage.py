"""How often the intervals of `ferbench report` hold what they should, and how often a comparison is wrong.

    python scripts/coverage.py results/runs/fer2013/full/RUN/test.npz 1 2 3 5

A file: one seed's predictions are taken for the whole world; samples of as many images are drawn from it, each with
its interval, and it is counted how often that holds the world's score. A number: that many seeds, and two entries that
do not differ, of invented answers, in which every image has its own difficulty and every seed its own skill.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ferbench.evaluation.metrics import METRICS, compute
from ferbench.evaluation.predictions import Predictions
from ferbench.evaluation.resampling import percentile_interval, resample, stratified_weights
from ferbench.evaluation.statistics import compare, interval, pooled_spread

SAMPLES, RESAMPLES = 1000, 1000
LOST = 0.02
"""Share of the right answers that another view of a training gets wrong."""
VIEW_SDS = (0.002, 0.005)
"""Standard deviations of the seeds' true gains from another view."""
SEED_SD = 0.005
"""Standard deviation of the seeds' true accuracies: half a point, as runs on FER2013 have it."""
WIDE_SD = 0.03
"""The same where seeds differ by more than images do, as after a few short epochs."""


def one_seed(world: Predictions) -> dict[str, float]:
    """Metric -> share of samples whose interval holds the world's score."""
    random = np.random.default_rng(1)
    truth, held = compute(world), dict.fromkeys(METRICS.names, 0)
    for draw in range(SAMPLES):
        counts = stratified_weights(world.labels, 1, random)[0].astype(int)
        rows = np.repeat(np.arange(len(world)), counts)
        sample = Predictions(
            world.split, world.classes, np.array([f"{i:06d}" for i in range(len(rows))]), world.labels[rows],
            world.probabilities[rows],
        )  # fmt: skip
        (draws,) = resample([[sample]], resamples=RESAMPLES, seed=draw)
        for metric in METRICS.names:
            low, high = interval(draws, metric)
            held[metric] += low <= truth[metric] <= high
    return {metric: count / SAMPLES for metric, count in held.items()}


def accuracy_of_one_seed(world: Predictions, samples: int = 10_000, resamples: int = 2000) -> float:
    """The same share for accuracy alone, of ten times as many samples: right images are counted, not drawn.

    Within a class the number of right images of a draw with replacement is binomial, so nothing is approximated.
    """
    random = np.random.default_rng(2)
    labels, right = world.labels, world.predicted == world.labels
    sizes = np.bincount(labels)
    shares = np.bincount(labels, right) / sizes
    held = 0
    for _ in range(samples):
        sample = random.binomial(sizes, shares)
        drawn = random.binomial(sizes, sample / sizes, (resamples, len(sizes))).sum(1) / len(labels)
        low, high = percentile_interval(drawn)
        held += low <= right.mean() <= high
    return held / samples


class Invented:
    """Entries of two classes; each image has a chance of being right, drawn from a Beta with mean .7."""

    def __init__(self, n: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.chance = self.random.beta(1.4, 0.6, n)
        self.labels = np.repeat(np.arange(2, dtype=np.uint8), [n // 2, n - n // 2])
        self.ids = np.array([f"{i:06d}" for i in range(n)])

    def entry(self, seeds: int, sd: float = SEED_SD) -> list[Predictions]:
        """An entry of that many seeds, each with a skill of its own."""
        return [self._seed(self.random.normal(0, sd)) for _ in range(seeds)]

    def view(self, entry: list[Predictions], sd: float) -> list[Predictions]:
        """The same trainings looked at otherwise: few answers differ, better or worse by seed, on average neither."""
        return [self._changed(p, max(LOST * 0.7 + self.random.normal(0, sd), 0) / 0.3) for p in entry]

    def _changed(self, p: Predictions, won: float) -> Predictions:
        """Right answers become wrong with the chance LOST, wrong ones right with the chance `won`."""
        right, chance = p.predicted == p.labels, self.random.random(len(p))
        return self._answers(np.where(right, chance >= LOST, chance < won))

    def _seed(self, skill: float) -> Predictions:
        return self._answers(self.random.random(len(self.chance)) < np.clip(self.chance + skill, 0, 1))

    def _answers(self, right: np.ndarray) -> Predictions:
        predicted = np.where(right, self.labels, 1 - self.labels)
        probabilities = np.where(np.eye(2, dtype=bool)[predicted], 0.9, 0.1).astype(np.float32)
        return Predictions("test", ("a", "b"), self.ids, self.labels, probabilities)


def several_seeds(seeds: int, sd: float, n: int = 3589) -> tuple[float, float]:
    """Share of intervals that hold the true accuracy, .7, and of comparisons of equals that tell them apart at 5 %."""
    held = told_apart = 0
    for draw in range(SAMPLES):
        world = Invented(n, draw)
        a, b = resample([world.entry(seeds, sd), world.entry(seeds, sd)], resamples=RESAMPLES, seed=draw)
        low, high = interval(a, "accuracy")
        held += low <= 0.7 <= high
        told_apart += compare(a, b, "accuracy").p < 0.05
    return held / SAMPLES, told_apart / SAMPLES


def single(seeds: int, n: int = 3589) -> tuple[float, float]:
    """Share of comparisons of equals that tell a single seed from several, and from another, in a table of seven."""
    from_several = from_another = 0
    for draw in range(SAMPLES):
        world = Invented(n, draw)
        entries = [world.entry(1), world.entry(1), *(world.entry(seeds) for _ in range(5))]
        one, other, several, *rest = resample(entries, resamples=RESAMPLES, seed=draw)
        pooled = pooled_spread([one, other, several, *rest], "accuracy")
        from_several += compare(one, several, "accuracy", pooled).p < 0.05
        from_another += compare(one, other, "accuracy", pooled).p < 0.05
    return from_several / SAMPLES, from_another / SAMPLES


def views(seeds: int, sd: float, n: int = 3589) -> float:
    """Share of comparisons of an entry with another view of the same trainings, no better, that tell them apart."""
    told_apart = 0
    for draw in range(SAMPLES):
        world = Invented(n, draw)
        entry = world.entry(seeds)
        a, b = resample([entry, world.view(entry, sd)], [range(seeds)] * 2, RESAMPLES, seed=draw)
        told_apart += compare(a, b, "accuracy").p < 0.05
    return told_apart / SAMPLES


def main() -> None:
    """Print what is asked for."""
    for word in sys.argv[1:]:
        if not word.isdecimal():
            share = accuracy_of_one_seed(Predictions.load(Path(word)))
            print(f"one seed, accuracy, 10,000 samples: {100 * share:.2f} % of intervals hold the score", flush=True)
            for metric, share in one_seed(Predictions.load(Path(word))).items():
                print(f"one seed, {metric}: {100 * share:.1f} % of intervals hold the score", flush=True)
            continue
        for sd in (SEED_SD, WIDE_SD):
            held, wrong = several_seeds(int(word), sd)
            print(
                f"seeds {word}, which differ by {100 * sd:.1f} points: {100 * held:.1f} % of intervals hold it, equals "
                f"told apart in {100 * wrong:.1f} %",
                flush=True,
            )
        if int(word) > 1:
            from_several, from_another = single(int(word))
            print(
                f"one seed beside entries of {word}: told apart from them in {100 * from_several:.1f} %, "
                f"from another single one in {100 * from_another:.1f} %",
                flush=True,
            )
        for sd in VIEW_SDS:
            wrong = views(int(word), sd)
            print(f"seeds {word}, views whose gains vary by {100 * sd:.1f} points: told apart in {100 * wrong:.1f} %")


if __name__ == "__main__":
    main()
