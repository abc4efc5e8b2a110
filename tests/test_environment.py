from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from ferbench import environment
from ferbench.environment import Arithmetic, choose_device, describe, nearest_precision, stream_seed
from ferbench.errors import InputError
from ferbench.records.record import Environment

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_computes_in_the_named_type(name, dtype):
    arithmetic = Arithmetic(CPU, name)
    with arithmetic.autocast():
        assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == dtype
    assert (torch.ones(4, 4) @ torch.ones(4, 4)).dtype == torch.float32
    assert arithmetic.needs_scaler == (name == "fp16")


@pytest.mark.parametrize(("gpus", "expected"), [(0, "cpu"), (2, "cuda")])
def test_auto_takes_a_gpu_where_there_is_one(gpus, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    before = torch.get_float32_matmul_precision()
    try:
        assert choose_device("auto").type == expected
        assert torch.get_float32_matmul_precision() == ("high" if gpus else before)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("name", "gpus", "fragment"),
    [
        ("cuda", 0, "has 0 GPUs"),
        ("cuda:2", 2, "has 2 GPUs"),
        ("tpu", 1, "auto, cpu, cuda or cuda:N"),
        ("mps", 1, "auto, cpu, cuda or cuda:N"),
        ("meta", 1, "auto, cpu, cuda or cuda:N"),
        ("cuda:x", 1, "auto, cpu, cuda or cuda:N"),
        ("", 1, "auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_device_that_is_not_here_is_refused(name, gpus, fragment, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(InputError) as caught:
        choose_device(name)
    assert fragment in str(caught.value) and f"--device {name}:" in str(caught.value)


def test_named_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cpu") == CPU
    assert choose_device("cuda:1") == torch.device("cuda:1")


@pytest.mark.parametrize(
    ("wanted", "device", "has_bf16", "expected"),
    [
        ("bf16", CUDA, True, "bf16"),
        ("bf16", CUDA, False, "fp16"),
        ("bf16", CPU, True, "bf16"),
        ("bf16", CPU, False, "fp32"),
        ("fp16", CPU, False, "fp16"),
        ("fp16", CUDA, True, "fp16"),
        ("fp32", CUDA, False, "fp32"),
    ],
)
def test_bf16_becomes_something_else_where_it_is_missing(wanted, device, has_bf16, expected, monkeypatch):
    current: list[torch.device] = []

    @contextmanager
    def on(chosen):
        current.append(chosen)
        yield

    def is_supported(including_emulation=True):
        assert current == [device], "of the device that is used, not of the first"
        return has_bf16 or including_emulation

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": has_bf16})
    assert nearest_precision(wanted, device) == expected


def test_streams_and_runs_have_unrelated_seeds():
    seeds = [stream_seed(s, name) for s in range(200) for name in ("init", "order", "augment", "torch")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    # every bit is used: neighbouring seeds share about half of their 56 bits
    near = [(stream_seed(s, "order") ^ stream_seed(s + 1, "order")).bit_count() for s in range(200)]
    assert 26 < sum(near) / len(near) < 30


def test_stream_seed_never_changes():
    # blake2b("0 order") to 7 bytes, as `printf '0 order' | b2sum -l 56` prints it: published runs rest on it
    assert stream_seed(0, "order") == int(B2SUM, 16)


B2SUM = "d9cdbf5d6c9e3c"


def test_description_is_what_records_store():
    here = Environment(**describe(CPU))
    assert here.device_type == "cpu"
    assert torch.__version__.startswith(here.torch)
    assert here.threads == torch.get_num_threads()
    assert "core" in here.device


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx avx2\n", "AMD EPYC, 2 cores"),
        ("model name\t: AMD EPYC\nflags\t\t: avx2 avx512f avx512_bf16\n", "AMD EPYC (avx512_bf16), 2 cores"),
        (
            "model name\t: Intel(R) Xeon(R)\nflags\t\t: avx512f avx512_bf16 amx_bf16\n",
            "Intel(R) Xeon(R) (amx_bf16), 2 cores",
        ),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 svebf16\n", "aarch64 (svebf16), 2 cores"),
        ("", "aarch64, 2 cores"),
    ],
)
def test_processors_of_one_name_are_told_apart_by_their_instructions(cpuinfo, expected, monkeypatch):
    monkeypatch.setattr(environment.Path, "read_text", lambda *a, **k: cpuinfo)
    monkeypatch.setattr(environment.platform, "processor", lambda: "")
    monkeypatch.setattr(environment.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(environment, "usable_cores", lambda: 2)
    assert environment.cpu_name() == expected


@pytest.mark.parametrize(
    ("processes", "wanted", "threads"),
    [(1, None, None), (4, None, "2"), (4, "1", "1"), (4, "16", "2"), (16, None, "1"), (4, "many", "2")],
)
def test_processes_side_by_side_share_the_cores(processes, wanted, threads, monkeypatch):
    monkeypatch.setattr(environment, "usable_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wanted is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    expected = {} if threads is None else {"OMP_NUM_THREADS": threads}
    assert environment.shared_threads(processes) == expected


def test_absent_package_is_no_error():
    assert environment._version("no-such-package-of-that-name") == "absent"


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A git repository laid out as ours, which the module believes to run from."""
    root = tmp_path / "clone"
    for folder in ("ferbench", "baselines", "results"):
        (root / folder).mkdir(parents=True)
        (root / folder / "file.txt").write_text("1")
    monkeypatch.setattr(environment, "__file__", str(root / "ferbench" / "environment.py"))
    return root


def git(root, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, "-C", str(root), *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_commit_is_named_and_marked_when_code_or_inputs_changed(clone):
    assert environment.source_commit() is None
    git(clone, "init", "-q")
    assert environment.source_commit() is None, "a repository without a commit"
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "first")
    head = git(clone, "rev-parse", "HEAD")[:12]
    assert environment.source_commit() == head
    (clone / "results" / "file.txt").write_text("2")
    assert environment.source_commit() == head, "results do not make the code dirty"
    (clone / "baselines" / "file.txt").write_text("2")
    assert environment.source_commit() == head + "+dirty"
    git(clone, "checkout", "-q", "baselines")
    (clone / "ferbench" / "new.txt").write_text("2")
    assert environment.source_commit() == head + "+dirty"


def test_commit_of_a_built_package_is_that_of_its_clone(clone):
    (clone / "ferbench" / environment.COMMIT_FILE).write_text("0123456789ab")
    assert environment.source_commit() == "0123456789ab"


def test_build_notes_the_commit(clone, tmp_path):
    pytest.importorskip("setuptools")
    root = Path(__file__).parents[1]
    for name in ("setup.py", "ferbench/_commit.py"):
        (clone / name).write_bytes((root / name).read_bytes())
    (clone / "pyproject.toml").write_text(
        '[project]\nname = "ferbench"\nversion = "1"\n[tool.setuptools]\npackages = ["ferbench"]\n'
    )
    git(clone, "init", "-q")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "first")
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "built")]
    subprocess.run(build, cwd=clone, check=True, capture_output=True)
    noted = tmp_path / "built" / "ferbench" / environment.COMMIT_FILE
    assert noted.read_text() == git(clone, "rev-parse", "HEAD")[:12]
    subprocess.run(build, cwd=clone, check=True, capture_output=True, env={**os.environ, "PATH": ""})
    assert not noted.exists(), "nothing that an earlier build noted"


def test_commit_is_unknown_without_git(clone, monkeypatch):
    git(clone, "init", "-q")
    monkeypatch.setenv("PATH", "")
    assert environment.source_commit() is None
