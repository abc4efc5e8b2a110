"""Inference speed and memory: torch as it is, compiled, and ONNX Runtime, each in a process of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbench.bench.apart import Ask, apart
from ferbench.environment import peak_resident_bytes
from ferbench.errors import reason_of
from ferbench.records.bench import BenchRecord, BenchRow, rounded
from ferbench.records.record import Environment, utc_now

if TYPE_CHECKING:
    from ferbench.environment import Computed
    from ferbench.recipe import ModelRecipe
    from ferbench.spec import RunSpec

BATCH_SIZES = (1, 32, 256)
ENGINES = ("eager", "compiled", "onnxruntime")
TURNS = 5
"""Of every engine at one batch size."""
FEWEST, MOST = 2, 200
"""Timed passes of a turn."""
_FRESH = get_context("spawn")
"""Not from a process that has imported torch: an engine's memory is its own."""


@dataclass(frozen=True)
class Task:
    """What a process is asked to time; plain values, so that ONNX Runtime's need not import torch to read it."""

    engine: str
    model: ModelRecipe
    n_classes: int
    device: str
    precision: Computed
    channels_last: bool
    onnx_file: str


def measure_inference(spec: RunSpec, n_classes: int, device_name: str, seconds: float) -> BenchRecord:
    """Milliseconds of each pass at each batch size, and peak memory, of every engine."""
    import torch

    from ferbench.environment import choose_device, describe
    from ferbench.probe import choose_arithmetic

    device = choose_device(device_name)
    a = choose_arithmetic(spec, n_classes, device).arithmetic
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        file = str(Path(folder) / "network.onnx")
        tasks = [Task(e, spec.recipe.model, n_classes, str(device), a.name, a.channels_last, file) for e in ENGINES]
        timed = [_Timed(task, processes) for task in tasks]
        for batch_size in BATCH_SIZES:
            for _ in range(TURNS):
                for engine in timed:
                    engine.add(f"ms at {batch_size}", "passes", batch_size, seconds / TURNS)
            for engine in timed:
                engine.add(f"MB at {batch_size}", "peak_megabytes")
    return BenchRecord(
        suite="inference",
        subject=spec.recipe.model.name,
        finished_at=utc_now(),
        environment=Environment(**describe(device)),
        settings={
            "arithmetic": str(a),
            "input size": spec.recipe.model.input_size,
            "threads": torch.get_num_threads(),
            "processes": "one an engine, in turns",
        },
        rows=[t.row() for t in timed],
    )


class _Timed:
    """An engine in a process of its own, with its samples; one that has failed has none, and says why."""

    def __init__(self, task: Task, processes: ExitStack) -> None:
        self._name, self._note = task.engine, _unfit(task)
        self._samples: dict[str, list[float]] = {}
        self._engine: Ask | None = None
        if self._note:
            return
        with self._noting():
            if task.engine == "onnxruntime":
                with apart(Export, task, context=_FRESH) as ask:
                    self._note = f"logits within {ask('write'):.1g} of eager's"
            self._engine = processes.enter_context(apart(Engine, task, context=_FRESH))
            self.add("ready s", "ready_seconds")

    def add(self, unit: str, method: str, *arguments: float) -> None:
        """Keep what the engine's method gives as samples of that unit, unless the engine has failed."""
        if self._engine is not None:
            with self._noting():
                self._samples.setdefault(unit, []).extend(self._engine(method, *arguments))

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._note = f"failed: {reason_of(error)}"
            self._samples, self._engine = {}, None

    def row(self) -> BenchRow:
        samples = {unit: rounded(values) for unit, values in self._samples.items()}
        return BenchRow(name=self._name, samples=samples, note=self._note)


def _unfit(task: Task) -> str:
    """Why an engine is not timed here; empty: it is."""
    if task.engine != "onnxruntime":
        return ""
    if missing := [m for m in ("onnx", "onnxscript", "onnxruntime") if find_spec(m) is None]:
        return f"not installed: {', '.join(missing)} (the extra onnx)"
    return "" if task.device == "cpu" else "timed on CPUs only"


@dataclass
class Export:
    """A network to be written as ONNX."""

    task: Task

    def write(self) -> float:
        """Write it, with a free batch size; the largest difference of a logit from torch's is returned."""
        import torch

        network = _network(self.task)
        size = self.task.model.input_size
        example = torch.randn(2, 1, size, size)
        batch = {0: torch.export.Dim("batch")}
        torch.onnx.export(
            network,
            (example,),
            self.task.onnx_file,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=(batch,),
            external_data=False,
            dynamo=True,
            verbose=False,
        )
        logits = _onnx_session(self.task)(example.numpy())
        with torch.inference_mode():
            return float((network(example) - torch.from_numpy(logits)).abs().max())


class Engine:
    """A network ready to be called."""

    def __init__(self, task: Task) -> None:
        start = time.perf_counter()
        self._task = task
        self._run = _onnx_session(task) if task.engine == "onnxruntime" else _torch_session(task)
        self._run(self._images(BATCH_SIZES[0]))
        self._ready = time.perf_counter() - start

    def ready_seconds(self) -> list[float]:
        """The time until its first answer."""
        return [self._ready]

    def passes(self, batch_size: int, seconds: float) -> list[float]:
        """Milliseconds of each pass, from host memory to logits on the host."""
        images = self._images(batch_size)
        self._run(images)
        times: list[float] = []
        while len(times) < FEWEST or (sum(times) < 1000 * seconds and len(times) < MOST):
            start = time.perf_counter()
            self._run(images)
            times.append(1000 * (time.perf_counter() - start))
        return times

    def peak_megabytes(self) -> list[float]:
        """The most memory so far: of the device on a GPU, resident in this process on a CPU."""
        if self._task.device == "cpu":
            return [peak_resident_bytes() / 1e6]
        import torch

        return [torch.cuda.max_memory_allocated(self._task.device) / 1e6]

    def _images(self, batch_size: int) -> Any:
        size = self._task.model.input_size
        return np.random.default_rng(0).standard_normal((batch_size, 1, size, size), np.float32)


def _torch_session(task: Task) -> Callable[[Any], Any]:
    import torch

    from ferbench.environment import Arithmetic

    a = Arithmetic(torch.device(task.device), task.precision, task.channels_last)
    network = _network(task).to(a.device).to(memory_format=a.memory_format)
    called = torch.compile(network, dynamic=False) if task.engine == "compiled" else network

    @torch.inference_mode()
    def run(images: Any) -> Any:
        inputs = torch.from_numpy(images).to(a.device).contiguous(memory_format=a.memory_format)
        with a.autocast():
            logits = called(inputs)
        return logits.float().cpu().numpy()

    return run


def _onnx_session(task: Task) -> Callable[[Any], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(task.onnx_file, providers=["CPUExecutionProvider"])

    def run(images: Any) -> Any:
        return session.run(None, {"images": images})[0]

    return run


def _network(task: Task) -> Any:
    import torch

    from ferbench.models import build

    torch.manual_seed(0)
    # speed does not depend on the weights
    network = build(task.model.model_copy(update={"init": "scratch"}), task.n_classes).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            # a fresh norm changes nothing, or switches its branch off: an export could lose it unseen
            for values, low in ((module.weight, 0.5), (module.running_var, 0.5), (module.running_mean, -0.5)):
                torch.nn.init.uniform_(values, low, low + 1)  # type: ignore[arg-type]
    return network
