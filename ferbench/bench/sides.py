"""Ways to train the same network on the same images: ours, the conventional loop, the model alone; and validation."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.environment import Arithmetic, usable_cores
from ferbench.models import MODELS, build, head_name
from ferbench.runner import set_up
from ferbench.training.epochs import Epoch, Nobody, ValScores
from ferbench.training.optimization import build_optimizer, parameter_groups
from ferbench.training.replay import launched

if TYPE_CHECKING:
    from ferbench.data.dataset import Dataset, Split
    from ferbench.recipe import AugmentRecipe, ModelRecipe
    from ferbench.spec import RunSpec


PREFETCHED = 2
"""Batches that each process of a loader makes ahead: torch's default."""


class Side(Protocol):
    """What goes through images in batches."""

    def images_per_second(self, batches: int) -> float:
        """Its speed over that many batches."""


class Ours:
    """`Trainer.run_epoch`, all of it but validation: order, augmentation, loss, clipping, EMA, the epoch's row."""

    def __init__(self, spec: RunSpec, dataset: Dataset, arithmetic: Arithmetic) -> None:
        self.trainer = set_up(spec, dataset, arithmetic).trainer
        self._all, self._current = self.trainer.train, 0

    def images_per_second(self, batches: int) -> float:
        """Training speed over an epoch of that many batches."""
        return self.epoch(batches * self._all.batch_size).images_per_second

    def epoch(self, images: int) -> Epoch:
        """An epoch of that many images; they come again where there are fewer."""
        if images != self._current:
            index = torch.arange(images, device=self._all.images.device) % len(self._all)
            self.trainer.train = replace(self._all, images=self._all.images[index], targets=self._all.targets[index])
            self._current = images
        return self.trainer.run_epoch(lambda network, size: ValScores(0.0, 0.0, 0.0), Nobody())


class ModelAlone:
    """Forward, backward and update on one batch that stays on the device, and nothing else: the limit of any loop.

    They are launched as ours are.
    """

    def __init__(self, spec: RunSpec, dataset: Dataset, arithmetic: Arithmetic) -> None:
        recipe, n_classes, self._arithmetic = spec.recipe, len(dataset.classes), arithmetic
        self._network = _network(recipe.model, n_classes, arithmetic)
        groups = parameter_groups(self._network, head_name(MODELS[recipe.model.name], self._network), recipe.optimizer)
        self._optimizer = build_optimizer(groups, recipe.optimizer, scaled=False)
        size = recipe.model.input_size
        images = torch.randn(spec.batch_size, 1, size, size, device=arithmetic.device)
        self._images = images.contiguous(memory_format=arithmetic.memory_format)
        self._targets = torch.softmax(torch.randn(spec.batch_size, n_classes, device=arithmetic.device), 1)
        self._work = launched(self._forward_and_back, list(self._network.parameters()), arithmetic)

    def _forward_and_back(self, images: Tensor, targets: Tensor) -> Tensor:
        with self._arithmetic.autocast():
            logits = self._network(images)
        value = nn.functional.cross_entropy(logits.float(), targets)
        value.backward()
        return value.detach()

    def images_per_second(self, batches: int) -> float:
        """Training speed over that many steps on the same batch."""
        synchronise(self._arithmetic.device)
        start = time.perf_counter()
        for _ in range(batches):
            self._work(self._images, self._targets)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        synchronise(self._arithmetic.device)
        return batches * len(self._images) / (time.perf_counter() - start)


class Conventional:
    """What trainers of FER2013 commonly do: Pillow image by image in loader processes, NCHW, a number per step.

    Same network, batch, optimizer, clipping, EMA, and the recipe's augmentation as torchvision spells it. Its optimizer
    is torch's default implementation (AdamW where the recipe has Muon), its loss torch's own with label smoothing.
    """

    def __init__(self, spec: RunSpec, dataset: Dataset, arithmetic: Arithmetic) -> None:
        self._spec, self._arithmetic = spec, arithmetic
        recipe, n_classes = spec.recipe, len(dataset.classes)
        self._network = _network(recipe.model, n_classes, arithmetic)
        self._loss = nn.CrossEntropyLoss(label_smoothing=recipe.training.label_smoothing)
        self._optimizer = _default_optimizer(self._network, spec)
        self._scaler = torch.amp.GradScaler(arithmetic.device.type, enabled=arithmetic.needs_scaler)
        self._ema = _ema(self._network, recipe.training.ema_decay)
        self._faces = PillowFaces(dataset.train, recipe.model, recipe.augment)
        self._workers = usable_cores()
        # one epoch without end: starting the processes and sharing memory with them are a small part of a long one
        self._batches = iter(self._loader())

    def images_per_second(self, batches: int) -> float:
        """Training speed over that many batches, as in the midst of an epoch."""
        # what was made while nobody trained is not counted
        for _ in range(PREFETCHED * self._workers):
            next(self._batches)
        self._train(self._workers)
        return self._train(batches)

    def _train(self, batches: int) -> float:
        device = self._arithmetic.device
        synchronise(device)
        start = time.perf_counter()
        seen = correct = 0
        total = 0.0
        for batch in islice(self._batches, batches):
            images, labels = (t.to(device, non_blocking=True) for t in batch)
            value, logits = self._step(images, labels)
            # what is commonly printed beside the progress bar
            total += value.item() * len(labels)
            correct += int((logits.argmax(1) == labels).sum().item())
            seen += len(labels)
        synchronise(device)
        return seen / (time.perf_counter() - start)

    def _step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self._optimizer.zero_grad()
        with self._arithmetic.autocast():
            logits = self._network(images)
            value: Tensor = self._loss(logits, labels)
        self._scaler.scale(value).backward()
        if clip := self._spec.recipe.optimizer.clip_norm:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._network.parameters(), clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._ema is not None:
            self._ema.update(self._network)
        return value, logits

    def _loader(self) -> Any:
        return torch.utils.data.DataLoader(
            self._faces,  # type: ignore[arg-type]
            batch_size=self._spec.batch_size,
            sampler=cycle(np.random.default_rng(0).permutation(len(self._faces)).tolist()),
            num_workers=self._workers,
            prefetch_factor=PREFETCHED,
            pin_memory=self._arithmetic.device.type == "cuda",
        )


class Validation:
    """What an epoch's validation does: logits of val, and its scores."""

    def __init__(self, spec: RunSpec, dataset: Dataset, arithmetic: Arithmetic) -> None:
        self._prepared = set_up(spec, dataset, arithmetic)

    def images_per_second(self, batches: int) -> float:
        """Its speed over the images of that many training batches, or val's where these are fewer."""
        dataset = self._prepared.dataset
        n = min(batches * self._prepared.spec.batch_size, len(dataset.val))
        prepared = replace(self._prepared, dataset=replace(dataset, val=dataset.val.take(np.arange(n))))
        start = time.perf_counter()
        prepared.validate(prepared.trainer.network, prepared.spec.recipe.model.input_size)
        return n / (time.perf_counter() - start)


@dataclass
class PillowFaces:
    """A map-style data set whose images are opened, changed and normalised one by one."""

    split: Split
    model: ModelRecipe
    augment: AugmentRecipe

    def __post_init__(self) -> None:
        from PIL import Image
        from torchvision import transforms as t

        a, size = self.augment, self.model.input_size
        # pictures in memory: reading files would only slow the conventional side down
        self._pictures = [Image.fromarray(np.asarray(i)) for i in self.split.images]
        steps = [t.Resize((size, size))] if self._pictures[0].size != (size, size) else []
        steps += [
            t.RandomHorizontalFlip(a.flip),
            t.RandomAffine(
                a.rotate, (a.shift, a.shift), (1 / (1 + a.zoom), 1 + a.zoom), interpolation=t.InterpolationMode.BILINEAR
            ),
            t.ColorJitter(brightness=a.brightness, contrast=a.contrast),
            t.ToTensor(),
            t.Normalize([self.model.mean], [self.model.std]),
        ]
        if a.erase:
            steps.append(t.RandomErasing(a.erase, scale=(min(0.02, a.erase_size), a.erase_size)))
        self._change = t.Compose(steps)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self._change(self._pictures[i]), int(self.split.labels[i])


def matrix_rate(arithmetic: Arithmetic) -> float:
    """Multiply-accumulates a second, in units of 10^9, of a large matrix product: what the arithmetic can give."""
    n = 8192 if arithmetic.device.type == "cuda" else 2048
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[arithmetic.name]
    a, b = (torch.randn(n, n, device=arithmetic.device, dtype=dtype) for _ in range(2))
    a @ b
    synchronise(arithmetic.device)
    start = time.perf_counter()
    for _ in range(3):
        a @ b
    synchronise(arithmetic.device)
    return 3 * n**3 / (time.perf_counter() - start) / 1e9


def _network(model: ModelRecipe, n_classes: int, arithmetic: Arithmetic) -> nn.Module:
    return build(model, n_classes).to(arithmetic.device).to(memory_format=arithmetic.memory_format).train()


def _default_optimizer(network: nn.Module, spec: RunSpec) -> torch.optim.Optimizer:
    r, parameters = spec.recipe.optimizer, network.parameters()
    if r.name == "sgd":
        return torch.optim.SGD(parameters, r.lr, r.momentum, weight_decay=r.weight_decay, nesterov=r.momentum > 0)
    return torch.optim.AdamW(parameters, r.lr, (r.momentum, r.beta2), weight_decay=r.weight_decay)


def _ema(network: nn.Module, decay: float) -> Any:
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(network, decay=decay) if decay else None


def synchronise(device: torch.device) -> None:
    """Wait until a device has done all that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
