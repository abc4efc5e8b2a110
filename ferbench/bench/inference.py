"""Inference speed and memory: torch as it is, compiled, and ONNX Runtime, each in a process of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbench.environment import peak_resident_bytes
from ferbench.records.bench import BenchRecord, BenchRow, rounded
from ferbench.records.record import Environment, utc_now

if TYPE_CHECKING:
    from ferbench.environment import Computed
    from ferbench.recipe import ModelRecipe
    from ferbench.spec import RunSpec

BATCH_SIZES = (1, 32, 256)
ENGINES = ("eager", "compiled", "onnxruntime")
FEWEST, MOST = 10, 1000
"""Timed passes at one batch size."""


@dataclass(frozen=True)
class Task:
    """What a process is asked to time; plain values, so that ONNX Runtime's need not import torch to read it."""

    engine: str
    model: ModelRecipe
    n_classes: int
    device: str
    precision: Computed
    channels_last: bool
    seconds: float
    """For each batch size."""
    onnx_file: str


def measure_inference(spec: RunSpec, n_classes: int, device_name: str, seconds: float) -> BenchRecord:
    """Milliseconds of each pass at each batch size, and peak memory, of every engine."""
    import torch

    from ferbench.environment import choose_device, describe
    from ferbench.probe import choose_arithmetic

    device = choose_device(device_name)
    a = choose_arithmetic(spec, n_classes, device).arithmetic
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "network.onnx")
        rows = [
            _row(Task(e, spec.recipe.model, n_classes, str(device), a.name, a.channels_last, seconds, file))
            for e in ENGINES
        ]
    return BenchRecord(
        suite="inference",
        subject=spec.recipe.model.name,
        finished_at=utc_now(),
        environment=Environment(**describe(device)),
        settings={
            "arithmetic": str(a),
            "input size": spec.recipe.model.input_size,
            "threads": torch.get_num_threads(),
        },
        rows=rows,
    )


def _row(task: Task) -> BenchRow:
    missing = [m for m in ("onnx", "onnxscript", "onnxruntime") if find_spec(m) is None]
    if task.engine == "onnxruntime":
        if missing:
            return BenchRow(name=task.engine, samples={}, note=f"not installed: {', '.join(missing)} (the extra onnx)")
        if task.device != "cpu":
            return BenchRow(name=task.engine, samples={}, note="timed on CPUs only")
    note = ""
    try:
        if task.engine == "onnxruntime":
            note = f"logits within {_alone(export, task):.1g} of eager's"
        samples = _alone(time_engine, task)
    except BrokenProcessPool:
        return BenchRow(name=task.engine, samples={}, note="the process was killed (out of memory?)")
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        return BenchRow(name=task.engine, samples={}, note=f"failed: {type(error).__name__}: {reason}")
    return BenchRow(name=task.engine, samples={unit: rounded(values) for unit, values in samples.items()}, note=note)


def _alone(function: Callable[[Task], Any], task: Task) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, task).result()


def export(task: Task) -> float:
    """Write the network as ONNX, with a free batch size; the largest difference of a logit from torch's is returned."""
    import torch

    network = _network(task)
    example = torch.randn(2, 1, task.model.input_size, task.model.input_size)
    batch = {0: torch.export.Dim("batch")}
    torch.onnx.export(
        network,
        (example,),
        task.onnx_file,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=(batch,),
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    logits = _onnx_session(task)(example.numpy())
    with torch.inference_mode():
        return float((network(example) - torch.from_numpy(logits)).abs().max())


def time_engine(task: Task) -> dict[str, list[float]]:
    """By unit: the milliseconds of every pass at each batch size, the peak memory after it, the time to get ready."""
    start = time.perf_counter()
    run = _onnx_session(task) if task.engine == "onnxruntime" else _torch_session(task)
    samples: dict[str, list[float]] = {}
    size = task.model.input_size
    for batch_size in BATCH_SIZES:
        images = np.random.default_rng(0).standard_normal((batch_size, 1, size, size), np.float32)
        run(images)
        if batch_size == BATCH_SIZES[0]:
            samples["ready s"] = [time.perf_counter() - start]
        samples[f"ms at {batch_size}"] = _passes(run, images, task.seconds)
        samples[f"MB at {batch_size}"] = [_peak_memory(task) / 1e6]
    return samples


def _passes(run: Callable[[Any], Any], images: Any, seconds: float) -> list[float]:
    """Milliseconds of each pass, from host memory to logits on the host."""
    run(images)
    times: list[float] = []
    while len(times) < FEWEST or (sum(times) < 1000 * seconds and len(times) < MOST):
        start = time.perf_counter()
        run(images)
        times.append(1000 * (time.perf_counter() - start))
    return times


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


def _peak_memory(task: Task) -> float:
    """Bytes: of the device on a GPU, resident in this process on a CPU."""
    if task.device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(task.device)
    return peak_resident_bytes()
