"""The one training loop, for every model, strategy and device."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ferbench.training.epochs import Best, Epoch, Validate, Watcher
from ferbench.training.optimization import (
    Plateau,
    build_optimizer,
    parameter_groups,
    schedule_factor,
    set_learning_rate,
    weight_average,
)
from ferbench.training.replay import Replayed, Work, compiled, launched
from ferbench.training.streams import RandomStreams
from ferbench.training.treatment import Pasting

if TYPE_CHECKING:
    from ferbench.environment import Arithmetic
    from ferbench.recipe import AugmentRecipe, Recipe
    from ferbench.training.batches import Batches
    from ferbench.training.checkpoint import Checkpoint
    from ferbench.training.losses import Loss
    from ferbench.training.treatment import Treatment


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a finite number."""


@dataclass(frozen=True)
class Fitted:
    """A finished training; the network holds the weights of the best epoch."""

    best_epoch: int
    history: list[Epoch]
    elapsed: float
    """Seconds over all sittings, evaluation included."""
    rival_weights: dict[str, Tensor]
    """Of the epoch that `ValScores.rival` chose; empty where there was none."""


class Trainer:
    """A network with all that changes while it learns, so that a checkpoint is the state of one object."""

    def __init__(
        self,
        network: nn.Module,
        head: str,
        train: Batches,
        treatment: Treatment,
        recipe: Recipe,
        *,
        epochs: int,
        seed: int,
        arithmetic: Arithmetic,
    ) -> None:
        self.network, self.head, self.train, self.treatment, self.recipe = network, head, train, treatment, recipe
        self.epochs, self.arithmetic = epochs, arithmetic
        self.freeze_epochs = min(recipe.training.freeze_epochs, epochs)
        self.streams = RandomStreams(seed, arithmetic.device)
        self.scaler = torch.amp.GradScaler(arithmetic.device.type, enabled=arithmetic.needs_scaler)
        decay = recipe.training.ema_decay
        self.ema = weight_average(network, decay) if decay else None
        self.plateau = Plateau(recipe.schedule)
        self.mixing = treatment.mixing(arithmetic.device)
        self.treatment.watch(network.get_submodule(head))
        self.consistency = treatment.consistency(network, head, recipe.model.input_size)
        self._forward = compiled(network, recipe.model.input_size) if recipe.training.compile else network
        self.history: list[Epoch] = []
        self.best, self.rival = Best(), Best()
        self.elapsed = 0.0
        self._start_stage()

    @property
    def evaluated(self) -> nn.Module:
        """The network that is validated and kept: the weight average if there is one."""
        return self.network if self.ema is None else self.ema.module

    @property
    def frozen(self) -> bool:
        """Whether the next epoch trains the head alone."""
        return len(self.history) < self.freeze_epochs

    @property
    def finished(self) -> bool:
        """Whether the epochs are used up, or patience is."""
        done, patience = len(self.history), self.recipe.training.patience
        best = self.rival.epoch or self.best.epoch
        # before the backbone has learned, nothing says that it will not
        waited = done - max(best, self.freeze_epochs)
        return done >= self.epochs or bool(patience and best and waited >= patience)

    def _start_stage(self) -> None:
        """A fresh optimizer over what learns in the stage that begins: head alone, or all."""
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not self.frozen or name.startswith(self.head + "."))
        recipe = self.recipe.optimizer
        groups = parameter_groups(self.network, self.head, recipe)
        self.optimizer = build_optimizer(groups, recipe, scaled=self.arithmetic.needs_scaler)
        self._work_under: tuple[Loss, Work] | None = None

    @property
    def notes(self) -> list[str]:
        """What the reader of a record must know of how it was trained."""
        work = self._work_under and self._work_under[1]
        refusal = work.refusal if isinstance(work, Replayed) else ""
        return [f"slower than it need be, batches could not be recorded as a CUDA graph: {refusal}"] if refusal else []

    def work(self) -> Work:
        """From a batch of the next epoch to its gradients; recorded anew where the loss or what learns has changed."""
        loss = self.treatment.loss(len(self.history) + 1, self.epochs)
        if self._work_under is None or self._work_under[0] is not loss:
            self._work_under = loss, self._new_work(loss)
        return self._work_under[1]

    def _new_work(self, loss: Loss) -> Work:
        clip = self.recipe.optimizer.clip_norm
        learning = [p for group in self.optimizer.param_groups for p in group["params"]]

        def work(inputs: Tensor, targets: Tensor) -> Tensor:
            # a smaller last batch is not worth a minute of compiling
            forward = self._forward if len(inputs) == self.train.batch_size else self.network
            with self.arithmetic.autocast():
                logits = forward(inputs)
            value = loss(logits, targets)
            if self.consistency is not None:
                value = value + self.consistency(forward, inputs, self.arithmetic)
            self.scaler.scale(value).backward()
            if clip:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(learning, clip)
            return value.detach()

        return launched(work, learning, self.arithmetic)

    def _learning_rate(self, batch: int, n_batches: int) -> float:
        if self.frozen:
            return self.recipe.training.freeze_lr
        steps = (self.epochs - self.freeze_epochs) * n_batches
        step = (len(self.history) - self.freeze_epochs) * n_batches + batch
        factor = schedule_factor(self.recipe.schedule, step / max(steps - 1, 1))
        return self.recipe.optimizer.lr * factor * self.plateau.factor

    def _grown(self) -> float:
        """How far this epoch is between the first one's images and the final ones, 0 to 1."""
        # the last epoch always has the full size: weights learned at another one do badly at it
        if len(self.history) + 1 == self.epochs:
            return 1.0
        return min(len(self.history) / max(self.recipe.training.growth * self.epochs, 1), 1.0)

    def _size(self) -> int:
        """Side of this epoch's training images."""
        final, start, grown = self.recipe.model.input_size, self.recipe.training.start_size, self._grown()
        # multiples of 4 keep the maps of two poolings whole
        return final if grown == 1 or not 0 < start < final else int((start + grown * (final - start)) / 4) * 4

    def _augment(self) -> AugmentRecipe:
        """The epoch's augmentation, weaker while the images grow."""
        start = self.recipe.training.start_strength
        return self.recipe.augment.weakened(start + self._grown() * (1 - start))

    def _training_mode(self) -> None:
        self.network.train()
        if self.recipe.training.freeze_norm:
            for name, module in self.network.named_modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm) and not name.startswith(self.head + "."):
                    module.eval()

    def _order(self, weights: Tensor | None) -> Tensor:
        if weights is None:
            order = torch.randperm(len(self.train), generator=self.streams.order)
        else:
            order = torch.multinomial(weights, len(self.train), True, generator=self.streams.order)
        return order.to(self.arithmetic.device, non_blocking=True)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The next epoch's inputs and targets."""
        order = self._order(self.treatment.image_weights(len(self.history) + 1, self.epochs))
        partners = self._order(self.mixing.partners) if isinstance(self.mixing, Pasting) else None
        coins = torch.rand(self.train.n_train_batches, generator=self.streams.order).tolist()
        generator = self.streams.augment
        return self.train.training(order, self._size(), self._augment(), generator, coins, self.mixing, partners)

    def run_epoch(self, validate: Validate, watcher: Watcher) -> Epoch:
        """One pass over the training images, then validation at their size; the epoch is added to the history.

        Raises:
            TrainingDivergedError: the mean loss is not finite.
        """
        sitting = time.perf_counter()
        number, n_batches, size = len(self.history) + 1, self.train.n_train_batches, self._size()
        if number - 1 == self.freeze_epochs > 0:
            self._start_stage()
        self._training_mode()
        work = self.work()
        total, images, lr = torch.zeros((), device=self.arithmetic.device), 0, 0.0
        for batch, (inputs, targets) in enumerate(self.batches()):
            lr = self._learning_rate(batch, n_batches)
            set_learning_rate(self.optimizer, lr)
            value = work(inputs, targets)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            if self.ema is not None:
                self.ema.update(self.network, step=(number - 1) * n_batches + batch)
            # summed on the device: nothing in an epoch waits for a number
            total += value * len(inputs)
            images += len(inputs)
            watcher.on_batch(number, images)
        train_loss = float(total) / images
        seconds = time.perf_counter() - sitting
        if not math.isfinite(train_loss):
            raise TrainingDivergedError(f"training diverged: the loss is {train_loss} in epoch {number}")
        scores = validate(self.evaluated, size)
        row = Epoch(
            number, lr, train_loss, scores.accuracy, scores.macro_f1, scores.nll, seconds, images / seconds, size
        )
        self._take_note(row, scores.rival)
        self.elapsed += time.perf_counter() - sitting
        return row

    def _take_note(self, row: Epoch, rival: float | None) -> None:
        self.history.append(row)
        score = row.val_accuracy if self.recipe.training.select == "accuracy" else row.val_macro_f1
        if row.epoch > self.freeze_epochs:
            # what steers the training is never test
            self.plateau.update(score if rival is None else rival)
        # weights that have only seen smaller images, or a part of the strategy, are not what the recipe asks for
        if row.input_size == self.recipe.model.input_size and self.treatment.has_started(row.epoch, self.epochs):
            self.best.offer(row.epoch, score, self.evaluated)
            if rival is not None:
                self.rival.offer(row.epoch, rival, self.evaluated)

    def state(self) -> dict[str, Any]:
        """Everything that the epochs to come depend on, as tensors and plain values."""
        return {
            "arithmetic": [self.arithmetic.name, self.arithmetic.channels_last],
            "network": self.network.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "plateau": self.plateau.state(),
            "random": self.streams.state(),
            "history": [asdict(e) for e in self.history],
            "best": vars(self.best),
            "rival": vars(self.rival),
            "elapsed": self.elapsed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.history = [Epoch(**e) for e in state["history"]]
        # the optimizer that was at work in the last finished epoch; run_epoch changes it at a stage's border
        last = self.history.pop()
        self._start_stage()
        self.history.append(last)
        self.network.load_state_dict(state["network"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.plateau.restore(state["plateau"])
        self.streams.restore(state["random"])
        self.best.restore(state["best"], self.arithmetic.device)
        self.rival.restore(state["rival"], self.arithmetic.device)
        self.elapsed = state["elapsed"]


def fit(trainer: Trainer, validate: Validate, checkpoint: Checkpoint, watcher: Watcher) -> Fitted:
    """Train to the end, from the checkpoint if there is one; val decides the epoch, test is nowhere near.

    The trainer's network ends with the weights of the best epoch.
    """
    saved = checkpoint.load()
    if saved is not None:
        trainer.restore(saved)
        if not trainer.finished:
            watcher.on_note(f"goes on after epoch {len(trainer.history)} of {trainer.epochs}")
        for row in trainer.history:
            watcher.on_epoch(row)
    while not trainer.finished:
        row = trainer.run_epoch(validate, watcher)
        checkpoint.save(trainer.state)
        watcher.on_epoch(row)
    trainer.network.load_state_dict(trainer.best.weights)
    return Fitted(trainer.best.epoch, trainer.history, trainer.elapsed, trainer.rival.weights)
