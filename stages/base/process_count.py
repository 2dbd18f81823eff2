"""How many processes a stage may use: one way to ask, for all stages."""

import os

MAX_PROCESSES = 1000  # torchrun would start any number


def processes_asked_for() -> int | None:
    """Read the environment variable PROCESSES; None if it is unset or empty.

    Their number changes no byte of any output, so it is not a param. Raises ValueError if it is not
    a whole number from 1 to MAX_PROCESSES.
    """
    text = os.environ.get("PROCESSES")
    if not text:
        return None
    if not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= MAX_PROCESSES:
        raise ValueError(
            f"PROCESSES: found {text!r}; expected a whole number, 1 to {MAX_PROCESSES}"
        )
    return int(text)
