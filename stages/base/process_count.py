"""How many processes a stage may use: one way to ask, for all stages."""

import os

MAX_PROCESSES = 1000  # torchrun would start any number


def processes_asked_for() -> int | None:
    """Read the environment variable PROCESSES; None if it is unset or empty.

    One if torchrun has started this process, as it has started the others. Their number changes no
    byte of any output, so it is not a param. Raises ValueError if it is not a whole number from 1
    to MAX_PROCESSES.
    """
    if under_torchrun():
        return 1
    text = os.environ.get("PROCESSES")
    if not text:
        return None
    if not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= MAX_PROCESSES:
        raise ValueError(
            f"PROCESSES: found {text!r}; expected a whole number, 1 to {MAX_PROCESSES}"
        )
    return int(text)


def on_several_machines() -> bool:
    """Whether torchrun's variable says that the stage runs on other machines too."""
    return "PET_NNODES" in os.environ and not under_torchrun()


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ
