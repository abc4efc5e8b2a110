"""Where Optuna keeps studies: a journal file by default, or any database that it can reach.

What a study must never lose or do twice is a trial. On one machine a trial's process holds a lock on its folder, which
ends with the process, `kill -9` included; the next process that asks for a trial finds the lock free and sees to it.
Over a database, where machines cannot see each other's locks, Optuna's heartbeats stand in for them.
"""

from __future__ import annotations

import fcntl
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

import optuna
from optuna.storages import JournalStorage, RDBStorage, fail_stale_trials
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.trial import TrialState

from ferbench.errors import InputError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, Trial

JOURNAL = "journal.log"
HEARTBEAT_SECONDS = 20
MISSED_HEARTBEATS = 4
"""After so many a trial of another machine is taken for dead."""
_CONNECTION_ATTEMPTS = 5

Retry = Callable[["Study", "FrozenTrial"], None]
"""Queues another attempt of a trial that is marked as failed."""


class Keeper(Protocol):
    """How it is known which trials are at work."""

    poll_seconds: float
    """How often to look again at trials of other processes."""
    is_exclusive: bool
    """Whether an `asking` block keeps all other processes out, not only those of this machine."""

    def asking(self) -> AbstractContextManager[None]:
        """A block in which no other process of this machine asks for a trial."""

    def hold(self, trial: Trial) -> None:
        """The trial is at work here, until `release`."""

    def beat(self) -> None:
        """The held trials still are; called every few seconds."""

    def release(self, trial: Trial) -> None:
        """The trial has ended."""

    def bury(self, study: Study, retry: Retry) -> None:
        """Mark trials as failed whose process is gone, each with another attempt; in an `asking` block."""


Opened = tuple["BaseStorage", Keeper]
"""A storage, and how it is known there which trials are at work."""


class Locks:
    """Of a journal file: locks of the file system."""

    poll_seconds = 1.0
    is_exclusive = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[int, TextIO] = {}

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Under the study's own lock."""
        with (self._folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def hold(self, trial: Trial) -> None:
        """Lock the trial."""
        file = self._open(trial.number)
        fcntl.flock(file, fcntl.LOCK_EX)
        self._held[trial.number] = file

    def beat(self) -> None:
        """Nothing: a lock needs none."""

    def release(self, trial: Trial) -> None:
        """Unlock it."""
        if (file := self._held.pop(trial.number, None)) is None:
            return
        file.close()
        self._path(trial.number).unlink(missing_ok=True)

    def bury(self, study: Study, retry: Retry) -> None:
        """Those that are unlocked."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number in self._held:
                continue
            with self._open(trial.number) as file, suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # it may have ended since the trials were listed
                if study.get_trials(deepcopy=False)[trial.number].state != TrialState.RUNNING:
                    continue
                # in this order: a process that dies in between leaves the trial to be buried again
                retry(study, trial)
                study.tell(trial.number, state=TrialState.FAIL)
                self._path(trial.number).unlink(missing_ok=True)

    def _open(self, number: int) -> TextIO:
        path = self._path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")

    def _path(self, number: int) -> Path:
        return self._folder / "trials" / f"{number}.lock"


class Heartbeats:
    """Of a database: heartbeats, by its own clock."""

    is_exclusive = False

    def __init__(self, storage: RDBStorage) -> None:
        self._storage = storage
        self._held: dict[int, int] = {}
        self._last = 0.0
        self._since: dict[tuple[str, int], float] = {}
        interval = storage.get_heartbeat_interval()
        assert interval is not None
        self.poll_seconds = float(interval)

    def asking(self) -> AbstractContextManager[None]:
        """Nothing: the database decides between processes."""
        return nullcontext()

    def hold(self, trial: Trial) -> None:
        """The first heartbeat."""
        self._held[trial.number] = trial._trial_id
        self._storage.record_heartbeat(trial._trial_id)

    def beat(self) -> None:
        """One each, when it is time."""
        if time.monotonic() - self._last >= self.poll_seconds:
            self._beat()

    def _beat(self) -> None:
        self._last = time.monotonic()
        for trial_id in self._held.values():
            self._storage.record_heartbeat(trial_id)

    def release(self, trial: Trial) -> None:
        """No more heartbeats."""
        self._held.pop(trial.number, None)

    def bury(self, study: Study, retry: Retry) -> None:
        """Those without a recent heartbeat; the database lets one process alone do it."""
        # a process that was asleep must not take its own trials for dead
        self._beat()
        self._storage.heartbeat_stale_trial_callback = retry
        trials = study.get_trials(deepcopy=False)
        for trial in trials:
            # its process died before the first heartbeat, and Optuna looks at none but those that have one
            if trial.state == TrialState.RUNNING and trial.number not in self._held and self._is_old("running", trial):
                self._storage.record_heartbeat(trial._trial_id)
        with quiet():
            fail_stale_trials(study)
        for trial in trials:
            # the process that buried it died before it could queue another attempt
            if trial.state == TrialState.FAIL and "reason" not in trial.user_attrs and self._is_old("failed", trial):
                retry(study, trial)

    def _is_old(self, state: str, trial: FrozenTrial) -> bool:
        """Once for each trial: whether this process has seen it in that state longer than a heartbeat may be late."""
        since = self._since.setdefault((state, trial.number), time.monotonic())
        if time.monotonic() - since <= MISSED_HEARTBEATS * self.poll_seconds:
            return False
        self._since[state, trial.number] = float("inf")
        return True


def open_journal(folder: Path) -> Opened:
    """The journal in a study's folder, made if there is none.

    Raises:
        InputError: it cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Optuna's lock is a link to the path as it is given, which must lead somewhere from where the link lies
    path = (folder / JOURNAL).resolve()
    try:
        _mend(path)
        return JournalStorage(JournalFileBackend(str(path))), Locks(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: no journal of a study ({type(error).__name__}: {error})") from None


def _mend(path: Path) -> None:
    """Cut off a last line that a dying process left half written; Optuna would glue the next one to it."""
    if not path.is_file():
        return
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    try:
        with path.open("r+b") as file:
            content = file.read()
            if content and not content.endswith(b"\n"):
                file.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()


def open_database(url: str, heartbeat_seconds: int = HEARTBEAT_SECONDS) -> Opened:
    """The storage at an RDB URL, its tables made if there are none.

    Raises:
        InputError: it cannot be reached, or its driver is not installed; the message has no password.
    """
    import sqlalchemy

    try:
        shown = sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        # not shown as it is: it may hold a password
        raise InputError("--storage: a URL such as postgresql+psycopg://user@host/database is expected") from None
    for attempt in range(_CONNECTION_ATTEMPTS):
        try:
            with quiet():
                storage = RDBStorage(
                    url,
                    # a server or a firewall may end a connection that was idle while a trial or a promotion trained
                    engine_kwargs={"pool_pre_ping": True},
                    heartbeat_interval=heartbeat_seconds,
                    grace_period=MISSED_HEARTBEATS * heartbeat_seconds,
                )
            return storage, Heartbeats(storage)
        except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
            raise InputError(f"--storage {shown}: its driver is not installed ({error})") from None
        except RuntimeError as error:
            # made by an Optuna that keeps its tables otherwise
            raise InputError(f"--storage {shown}: {_reason(error)}") from None
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            # several machines that make the tables at once get in each other's way, but once
            if attempt + 1 == _CONNECTION_ATTEMPTS:
                raise InputError(f"--storage {shown}: cannot be reached: {_reason(error)}") from None
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError


@contextmanager
def reached() -> Iterator[None]:
    """A block in which a database that goes away is told in a line.

    Raises:
        InputError: it has gone away.
    """
    try:
        yield
    except Exception as error:
        import sqlalchemy

        if not isinstance(error, sqlalchemy.exc.SQLAlchemyError | optuna.exceptions.StorageInternalError):
            raise
        raise InputError(f"--storage: lost: {_reason(error)}; the same command goes on with the study") from None


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return " ".join(str(getattr(cause, "orig", None) or cause).split())[:300]


def study_names_in(storage: BaseStorage) -> Iterable[str]:
    """Names of all studies in a storage."""
    return optuna.get_all_study_names(storage)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's own log, and its warnings of what we do on purpose."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
        warnings.filterwarnings("ignore", message="The reported value is ignored")
        yield
