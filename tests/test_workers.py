"""Real workers, forked and ended in every way; what they are asked to do fails at once, so nothing is trained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ferbench
from ferbench.forkserver import python
from ferbench.plan import Plan, make_plan
from ferbench.worker import Job
from ferbench.workers import FORKS, Workers

pytestmark = pytest.mark.skipif(not FORKS, reason="workers are forked on Linux alone")

NO_GPU_TOUCHED = """
import torch
def touched(*_): raise AssertionError("a GPU is touched before the fork")
for name in ("_cuda_init", "_cuda_getDeviceCount"):
    if hasattr(torch._C, name): setattr(torch._C, name, touched)
from ferbench.worker import prepare
prepare()
import os, threading
from pathlib import Path
assert threading.active_count() == 1, threading.enumerate()
opened = [os.readlink(p) for p in Path("/proc/self/fd").iterdir() if p.is_symlink()]
assert not [f for f in opened if "nvidia" in f], opened
"""


def test_workers_have_this_package_and_nothing_of_the_current_folder(tmp_path):
    """Where there is another copy of the package, and a file named as what the standard library imports."""
    (tmp_path / "ferbench").mkdir()
    for file in ("ferbench/__init__.py", "random.py"):
        (tmp_path / file).write_text("raise SystemExit('the current folder is on the path')")
    *words, code = python("environment.describe_software")
    told = f"{code}; import random; print(sys.modules['ferbench'].__file__)"
    done = subprocess.run([*words, told], cwd=tmp_path, capture_output=True, text=True)
    assert (Path(done.stdout.strip()), done.stderr) == (Path(ferbench.__file__).resolve(), "")


@pytest.fixture
def plan(faces: Path, tmp_path: Path) -> Plan:
    return make_plan("plain_cnn", source=faces, results=tmp_path / "results")


@pytest.fixture
def refused(plan: Plan) -> Job:
    """A job that its worker refuses."""
    return plan.job(plan.specs[0], "run").model_copy(update={"device": "cuda:99"})


@pytest.fixture
def broken(plan: Plan) -> Job:
    """A job that fails once its worker has said where it is."""
    other = plan.specs[0].data.model_copy(update={"fingerprint": "0123abcd"})
    return plan.job(plan.specs[0].model_copy(update={"data": other}), "run")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers[str]]:
    with Workers[str]({"OMP_NUM_THREADS": "1"}) as found:
        yield found


def end(workers: Workers[str]) -> tuple[list[dict[str, Any]], int]:
    """What the worker at work says and its exit code."""
    said = []
    while True:
        for worker, event in workers.hear():
            if event is None:
                return said, worker.exit_code
            said.append(event)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def server_of(workers: Workers[str]) -> int:
    assert workers._server
    return workers._server._process.pid


def test_nothing_touches_a_gpu_or_starts_a_thread_before_the_fork():
    done = subprocess.run([sys.executable, "-c", NO_GPU_TOUCHED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_server_forks_all(workers, refused, broken, tmp_path):
    workers.start(refused, None, "first")
    (said,), code = end(workers)
    assert (said["event"], code) == ("refused", 1) and "cuda:99" in said["reason"]
    server = server_of(workers)
    workers.start(broken, tmp_path / "worker.log", "second")
    assert workers.at_work == ["second"]
    (started, failed), code = end(workers)
    assert (started["event"], failed["event"], code) == ("started", "failed", 1)
    assert started["environment"]["threads"] == 1, "variables of the block reach its workers"
    assert "not 0123abcd" in failed["reason"]
    # each has its own log
    assert "Traceback" in (tmp_path / "worker.log").read_text()
    assert server_of(workers) == server and children(server) == []


def test_killed_worker_is_told_by_its_signal_and_another_server_takes_over(workers, refused):
    workers.start(refused, None, "before")
    end(workers)
    server = server_of(workers)
    workers.start(refused.model_copy(update={"task": "estimate", "device": "cpu"}), None, "killed")
    (key,) = workers._pipes.get_map().values()
    process = key.data.process
    assert process._is_told(process._pid)
    process.kill()
    assert end(workers) == ([], -signal.SIGKILL)
    assert children(server) == []

    os.kill(server, signal.SIGKILL)
    workers._server._process.wait()
    workers.start(refused, None, "after")
    assert end(workers)[1] == 1
    assert server_of(workers) != server


def test_worker_whose_server_was_killed_is_ended_with_its_block(refused, plan):
    with Workers[str]() as workers:
        workers.start(refused, None, "before")
        end(workers)
        workers.start(refused.model_copy(update={"task": "estimate", "device": "cpu"}), None, "orphan")
        (key,) = workers._pipes.get_map().values()
        process = key.data.process
        assert process._is_told(process._pid)
        os.kill(server_of(workers), signal.SIGKILL)
        workers._server._process.wait()
    assert process.wait() == -signal.SIGKILL
    state = Path(f"/proc/{process._pid[0]}/stat")
    assert not state.exists() or state.read_text().rpartition(") ")[2][0] == "Z"


def test_what_a_server_cannot_import_is_in_the_log_of_each_run(refused, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('no torch for you')")
    with Workers[str]({"PYTHONPATH": str(tmp_path)}) as workers:
        for name in ("a", "b"):
            workers.start(refused, tmp_path / name, name)
        assert [end(workers), end(workers)] == [([], 1), ([], 1)]
    for name in ("a", "b"):
        assert "no torch for you" in (tmp_path / name).read_text()


def test_block_that_ends_while_its_server_imports_leaves_nothing_behind(refused):
    with Workers[str]() as workers:
        workers.start(refused, None, "never")
        server = server_of(workers)
    assert not Path(f"/proc/{server}").exists()
