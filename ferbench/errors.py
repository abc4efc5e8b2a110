"""What can go wrong by the user's doing, as one line of text."""

from __future__ import annotations


class InputError(ValueError):
    """Bad usage or bad input: the message is one line that names the value, where it is and what would be right.

    The command line prints the message and exits with 2; from Python it is raised like any `ValueError`.
    """


class RunFailedError(RuntimeError):
    """What was asked for was right, and a training of it failed: the message is one line that says which and why.

    The command line prints the message and exits with 1.
    """


def reason_of(error: BaseException) -> str:
    """An error as one line."""
    text = " ".join(str(error).split())
    ours = isinstance(error, ValueError | RunFailedError)
    return (text if ours and text else f"{type(error).__name__}: {text}")[:500]


def check_utf8(name: str, where: str) -> None:
    """Refuse a file's name that is no text: records and messages are UTF-8.

    Raises:
        InputError: it is none.
    """
    if name != name.encode(errors="replace").decode():
        raise InputError(f"{where} {name!a} is not UTF-8: rename it")


class Interrupted(BaseException):
    """The user or the system asked to stop; what was finished is on disk and the next call goes on from there."""

    def __init__(self, exit_code: int, then: str = "the same command goes on from the last epoch") -> None:
        super().__init__(f"stopped; {then}")
        self.exit_code = exit_code
