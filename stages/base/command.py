"""How a stage's function becomes a command: its help, its one-line errors, its exit codes."""

import functools
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import getdoc, signature
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import typer

MAX_WORD, MAX_LINE = 300, 2000  # characters of a message

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
            with _signals_that_raise():
                command(**arguments)
        except KeyboardInterrupt:
            _report("interrupted: no file was left half-written")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of our output has gone, as `head` does
            _discard(sys.stdout)
            raise typer.Exit(128 + signal.SIGPIPE) from None
        except (OSError, ValueError) as error:
            _report(f"error: {message(error)}")
            try:
                sys.stdout.flush()
            except OSError:  # the error is that of the output, as when the disk is full
                _discard(sys.stdout)
            raise typer.Exit(2) from None

    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Logs show each line as it is printed, and a name that is not Unicode raises no error.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    required = [p for p in signature(command).parameters.values() if p.default is p.empty]
    if params and required and len(sys.argv) == 1:
        stage = Path(sys.argv[0]).stem
        _report(
            f"error: found no options; expected those in dvc.yaml: `dvc repro {stage}` runs it"
            f" with them, `dvc repro --dry --force --single-item {stage}` prints the command"
        )
        sys.exit(2)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    sections = [getdoc(command), _params_help(params) if params else None]
    app.command(help="\n\n".join(filter(None, sections)))(guarded)
    app()


def message(error: OSError | ValueError) -> str:
    """What an error says, as one line: cut where it is too long, control characters escaped."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:  # the system's: omit its number
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    words = re.sub(rf"\S{{{MAX_WORD},}}", lambda word: _cut(word[0], MAX_WORD), printable(text))
    return _cut(words, MAX_LINE)


def printable(text: str) -> str:
    """`text` with control characters escaped: names come from files that anyone may send."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _cut(text: str, length: int) -> str:
    """The beginning and the end of a text that is longer than `length`."""
    return text if len(text) <= length else f"{text[: length // 2]}[...]{text[-length // 2 :]}"


def _report(line: str) -> None:
    try:
        print(line, file=sys.stderr)
    except OSError:  # the exit code says it
        _discard(sys.stderr)


def _open_closed_streams() -> None:
    """Open standard streams that are closed: else the next file would get their place, and output.

    Python starts with None for each of them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nowhere, "r" if name == "stdin" else "w"))
            try:
                os.fstat(number)
            except OSError:
                os.dup2(nowhere, number)
            os.set_inheritable(number, True)  # also by the processes that this one starts


def _discard(stream: TextIO) -> None:
    """Let what is buffered go nowhere: else the interpreter fails to write it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _signals_that_raise() -> Iterator[None]:
    """Let SIGINT and SIGTERM raise exceptions, so that a command cleans up.

    Before and after, while Python imports or exits, they end the process at once: an exception
    there would only print a traceback.
    """
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {signal.SIGTERM: _terminate}
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background of a shell
        handlers[signal.SIGINT] = signal.default_int_handler
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            signal.signal(number, signal.SIG_DFL)


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _params_help(params: "type[Params]") -> str:
    width = max(map(len, params.model_fields))
    rows = (f"  {name:{width}}  {field.description}" for name, field in params.model_fields.items())
    return "\b\nParams:\n" + "\n".join(rows)
