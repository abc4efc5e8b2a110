"""The commands: the only room that prints results and exits.

Heavy imports stay inside the commands, so that `ferbench --help` starts at once.
"""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any, NoReturn

import typer

from ferbench.cli import data, results, tune
from ferbench.cli.bench import bench
from ferbench.cli.lists import list_
from ferbench.cli.options import say
from ferbench.cli.run import run
from ferbench.errors import InputError, Interrupted, RunFailedError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, score and compare facial emotion recognition models on FER2013 under one protocol.",
    epilog="Exit codes: 0 ok, 1 a run failed, 2 bad usage or input, 130 Ctrl-C, 143 SIGTERM.",
)
for command in (run, bench, results.report, results.compare, results.ensemble, results.claims, results.rescore):
    app.command()(command)
app.command("list")(list_)
data_app = typer.Typer(no_args_is_help=True, help="Look at a data set, remember where it is, or fetch it.")
for data_command in (data.info, data.add, data.forget, data.download):
    data_app.command()(data_command)
app.add_typer(data_app, name="data")
app.add_typer(tune.app, name="tune")


# typer brings its own click, whose errors have no public name
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> NoReturn:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        exit_code = app(standalone_mode=False)
    except InputError as error:
        say(f"ferbench: {error}")
        sys.exit(2)
    except RunFailedError as error:
        say(f"ferbench: {error}")
        sys.exit(1)
    except _UsageError as error:
        _tell(error)
        sys.exit(2)
    except Interrupted as stop:
        say(f"ferbench: {stop}")
        sys.exit(stop.exit_code)
    except OSError as error:
        say(f"ferbench: {error.filename or 'output'}: {error.strerror or error}")
        sys.exit(2)
    except SystemExit:
        # typer raises it where the reader of a pipe has had enough, and returns all other exit codes
        sys.exit(0)
    sys.exit(exit_code or 0)


def _tell(error: Any) -> None:
    """A usage error in one line; without a message it was a call for help, which is on the screen."""
    message = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    if message:
        say(f"ferbench: {message} (see `{error.ctx.command_path} --help`)")


def _on_sigterm(number: int, frame: object) -> None:
    raise Interrupted(143)


def _version(show: bool) -> None:
    if show:
        from ferbench import __version__

        print(f"ferbench {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
