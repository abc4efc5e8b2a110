"""Where a run happens: device, arithmetic, versions, commit."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ferbench._commit import COMMIT_FILE, commit_of
from ferbench._version import VERSION
from ferbench.errors import InputError

if TYPE_CHECKING:
    import torch


_IMPORTED = time.monotonic()

Computed = Literal["fp32", "bf16", "fp16"]

MATRIX_FLAGS = ("amx_bf16", "avx512_bf16", "svebf16", "bf16", "avx512f", "sve")
"""What Linux calls instructions beyond AVX2 and NEON that make training faster, the most telling first."""


@dataclass(frozen=True)
class Arithmetic:
    """How a run computes: the one autocast path, and the order of images and weights in memory."""

    device: torch.device
    name: Computed
    """Autocast type."""
    channels_last: bool = False
    """Memory order NHWC instead of NCHW."""

    @property
    def needs_scaler(self) -> bool:
        """Whether gradients would underflow without a loss scaler."""
        return self.name == "fp16"

    def autocast(self) -> torch.autocast:
        """A context in which forward passes run; it does nothing for fp32."""
        import torch

        dtype = torch.float16 if self.name == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.name != "fp32")

    @property
    def memory_format(self) -> torch.memory_format:
        """Torch's name for the order."""
        import torch

        return torch.channels_last if self.channels_last else torch.contiguous_format

    def __str__(self) -> str:
        return f"{self.name} {'channels_last' if self.channels_last else 'contiguous'}"


def check_device_name(name: str) -> None:
    """Refuse what names no device; whether it is here only torch can say (`choose_device`)."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", name):
        raise InputError(f"--device {name}: unknown (auto, cpu, cuda or cuda:N)")


def choose_device(name: str) -> torch.device:
    """The device of "auto", "cpu", "cuda" or "cuda:1"; auto takes a GPU where there is one.

    In fp32 a GPU may then round what it multiplies to TF32 (10 bits of mantissa), as torch has it for convolutions.

    Raises:
        InputError: no such device here.
    """
    import torch

    check_device_name(name)
    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(found if name == "auto" else name)
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            n = torch.cuda.device_count()
            raise InputError(f"--device {name}: this machine has {n} GPUs that torch can use (auto takes what is here)")
        # other products too, so that there is one fp32, and the matrix rate is that of what convolutions do
        torch.set_float32_matmul_precision("high")
    return device


def nearest_precision(wanted: Computed, device: torch.device) -> Computed:
    """The wanted precision as far as the device has it: without bf16 a GPU takes fp16 and a CPU fp32."""
    import torch

    if wanted == "bf16" and device.type == "cuda":
        # torch asks the current device
        with torch.cuda.device(device):
            return wanted if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if wanted == "bf16" and device.type == "cpu" and not _cpu_has_bf16():
        return "fp32"
    return wanted


def _cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bf16; emulated, the plain CNN trains some 16 times slower than in fp32."""
    import torch

    has = torch.cpu.get_capabilities()
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def stream_seed(seed: int, stream: str) -> int:
    """The seed of one of a run's random streams, unrelated to that of any other stream or run."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {stream}".encode(), digest_size=7).digest())


def describe(device: torch.device) -> dict[str, Any]:
    """The fields of `records.record.Environment`."""
    import torch

    return {
        **describe_software(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
    }


@cache
def describe_software() -> dict[str, Any]:
    """The fields of `Environment` that need no torch, as they were when this process first asked."""
    return {
        "ferbench": VERSION,
        "commit": source_commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in ("torch", "torchvision", "timm", "numpy")},
        "scikit_learn": _version("scikit-learn"),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def cpu_name() -> str:
    """The processor's name, its widest instructions for matrices, and how many cores this process may use.

    Clouds call processors of several generations by one name, and those with bf16 train twice as fast as the others.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = facts.get("model name") or platform.processor() or platform.machine()
    has = (facts.get("flags") or facts.get("Features") or "").split()
    widest = next((f" ({flag})" for flag in MATRIX_FLAGS if flag in has), "")
    return f"{name}{widest}, {usable_cores()} cores"


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_threads(processes: int) -> dict[str, str]:
    """Variables that give each of several processes on a CPU its share of the cores, or OMP_NUM_THREADS if less."""
    if processes == 1:
        return {}
    share, wanted = max(usable_cores() // processes, 1), os.environ.get("OMP_NUM_THREADS", "")
    return {"OMP_NUM_THREADS": str(min(share, int(wanted)) if wanted.isdecimal() and int(wanted) else share)}


def keep_freed_memory() -> None:
    """Have glibc keep large blocks that are freed, instead of asking the system for them again in every training step.

    They would come back as zeroed pages, one fault for each: some 6 % of the CPU time of training the plain CNN.
    """
    import ctypes

    mmap_threshold, trim_threshold, largest, largest_of_old = -3, -1, 2**30, 2**25
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        # another C library
        return
    # 0: refused
    if not mallopt(mmap_threshold, largest):
        mallopt(mmap_threshold, largest_of_old)
    mallopt(trim_threshold, 2**31 - 1)


def peak_resident_bytes() -> int:
    """The most memory that this process has had resident."""
    try:
        # getrusage would count what the parent had when it started this process
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, ValueError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has held: on the GPU, or resident on a CPU."""
    import torch

    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident_bytes()


def process_age() -> float:
    """Seconds since this process was started, the interpreter's own start included where the system tells."""
    try:
        # field 22 of the line, the second one being a name in brackets that may hold spaces
        ticks = float(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
        return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.monotonic() - _IMPORTED


def source_commit() -> str | None:
    """The commit of the clone that the package runs from or was built in, as `_commit.commit_of` has it."""
    here = Path(__file__).resolve()
    noted = here.with_name(COMMIT_FILE)
    return noted.read_text(encoding="utf-8") if noted.is_file() else commit_of(here.parents[1])
