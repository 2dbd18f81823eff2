"""How a stage's function becomes a command: its help, its one-line errors, its exit codes."""

import functools
import inspect
import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import typer

if TYPE_CHECKING:  # commands without params need not wait for pydantic
    from stages.base.params import Params


def run(command: Callable[..., None], params: "type[Params] | None" = None) -> None:
    """Run `command` with the process's arguments, and exit.

    Exit codes: 0 done; 2 bad input, reported in one line on standard error; 130, 141 and 143
    stopped by SIGINT, SIGPIPE and SIGTERM (DVC would accept the outputs of a stage that exits
    with 0). Any other error is a bug of ours and keeps its traceback.
    """

    @functools.wraps(command)
    def guarded(**arguments: Any) -> None:
        try:
            command(**arguments)
        except KeyboardInterrupt:
            print("interrupted: no file was left half-written", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of our output has gone, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(128 + signal.SIGPIPE) from None
        except (OSError, ValueError) as error:
            print(f"error: {_line(error)}", file=sys.stderr)
            raise typer.Exit(2) from None

    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Logs show each line as it is printed, and a name that is not Unicode raises no error.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    sections = [inspect.getdoc(command), _params_help(params) if params else None]
    app.command(help="\n\n".join(filter(None, sections)))(guarded)
    app()


def _line(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.filename:  # the system's: omit its number
        return printable(f"{error.filename}: {error.strerror}")
    return printable(str(error))


def printable(text: str) -> str:
    """`text` with `?` for control characters: names come from files that anyone may send."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _params_help(params: "type[Params]") -> str:
    width = max(map(len, params.model_fields))
    rows = (f"  {name:{width}}  {field.description}" for name, field in params.model_fields.items())
    return "\b\nParams:\n" + "\n".join(rows)
