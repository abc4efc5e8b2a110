"""Studies in a real PostgreSQL, shared by processes as machines would share it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from ferbench.records.store import Store
from ferbench.study.tune import tune


def _program(name: str) -> str | None:
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(debian[-1]) if debian else shutil.which(name)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an empty server, without its database."""
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None:
        # .ci/run installs it, so there it must not be missing
        assert "FERBENCH_TEST_POSTGRES" not in os.environ, "PostgreSQL is not installed"
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    # PostgreSQL does not run as root
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="ferbench-postgres-"))
    if user:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run(
        [initdb, "-D", folder / "data", "-U", "ferbench", "--auth=trust", "--no-sync"],
        user=user, check=True, capture_output=True, cwd="/",
    )  # fmt: skip
    process = subprocess.Popen(
        [postgres, "-D", folder / "data", "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1"],
        user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        for _ in range(600):
            if answers():
                break
            time.sleep(0.05)
        assert answers(), "PostgreSQL did not start"
        yield f"postgresql+psycopg://ferbench@127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database(server: str, request: pytest.FixtureRequest) -> str:
    """The URL of a fresh database."""
    import psycopg

    name = f"d{abs(hash(request.node.name))}"
    address = server.replace("+psycopg", "")
    with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{server}/{name}"


def test_four_workers_of_two_machines(database, planned, fake, tmp_path, rows, words):
    """Each machine has a results folder of its own; no trial is lost or run twice."""
    machines = [
        fake.start(*words(tmp_path / f"machine{n}", 16, "--workers", "2", "--storage", database)) for n in range(2)
    ]
    for machine in machines:
        _, err = machine.communicate(timeout=200)
        assert machine.returncode == 0, err
    plan = planned(16, storage=database)
    found = rows(plan)
    assert len(found) == 16 and {r.state for r in found} <= {"complete", "pruned"}
    begun = Counter(words[1] for words in fake.told() if words[0] == "begin")
    assert begun == {str(r.number): 1 for r in found}
    assert found[0].params == plan.space.start
    # both worked, and both know it all
    for n in range(2):
        store = Store(tmp_path / f"machine{n}")
        assert store.study(plan.name).trials == found
        assert list(store.root.rglob("trials/*/worker.log")), f"machine {n} trained nothing"


def test_killed_worker_is_tried_again_from_its_checkpoint(database, planned, fake, rows, ears):
    fake.order("2 9 kill\n")
    plan = planned(5, storage=database, workers=4)
    tune(plan, ears())
    assert [(r.number, r.attempts) for r in rows(plan)][2] == (2, 2)
    assert len(rows(plan)) == 5 and set(fake.trained().values()) == {1}
    assert len(plan.ledger.study.get_trials(states=(TrialState.FAIL,))) == 1


def test_machine_that_dies_is_missed_and_its_trial_gone_on_with(database, planned, fake, tmp_path, rows, ears, words):
    fake.order("1 6 sleep\n")
    dying = fake.start(*words(tmp_path / "results", 3, "--storage", database))
    fake.wait_until(lambda: ("1", "5") in fake.trained())
    # a heartbeat later than the one that it began with
    dying.kill()
    dying.communicate()
    plan = planned(3, storage=database, heartbeat_seconds=1)
    tune(plan, heard := ears())
    assert (1, 2) in heard.trials
    assert [r.attempts for r in rows(plan)] == [1, 2, 1]
    assert set(fake.trained().values()) == {1}


def test_connection_that_the_server_ended_is_made_again(database, planned):
    """As after hours of training, or a restart of the server."""
    import psycopg

    plan = planned(2, storage=database)
    with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        ended = connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}").fetchall()
    assert ended
    assert plan.ledger.ask(plan.space).slot == 0


def test_without_the_server(database, planned):
    host = database.rpartition(":")[0]
    with pytest.raises(Exception, match="cannot be reached") as caught:
        planned(2, storage=f"{host}:1/none")
    assert "\n" not in str(caught.value)
