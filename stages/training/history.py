"""The history of a run: losses and accuracy, one row every `eval_every` iterations."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from stages.training.data import Examples
from stages.training.loop import Step, mean_loss_and_accuracy
from stages.training.processes import ALONE, Processes
from stages.training.settings import TrainParams


@dataclass(frozen=True)
class Row:
    """training_loss: mean cross entropy of the batches since the last row, in nats.

    validation_loss, in nats, and validation_accuracy, in [0, 1], are of the whole validation
    split with the weights after this iteration; None where there is no validation split.
    """

    iteration: int
    training_loss: float
    validation_loss: float | None
    validation_accuracy: float | None

    def __str__(self) -> str:
        text = f"iteration {self.iteration:6}  training loss {self.training_loss:.4f}"
        if self.validation_accuracy is not None:
            text += (
                f"  validation loss {self.validation_loss:.4f}"
                f"  accuracy {self.validation_accuracy:.2%}"
            )
        return text


class History:
    """The rows so far, and the batch losses that the next row will average."""

    def __init__(
        self, params: TrainParams, validation: Examples, processes: Processes = ALONE
    ) -> None:
        self.rows: list[Row] = []
        self._params, self._validation, self._processes = params, validation, processes
        self._loss, self._batches = 0.0, 0

    def add(self, step: Step) -> Row | None:
        """Record a step; return a row if one is due."""
        self._loss += step.loss
        self._batches += 1
        last = step.iteration == self._params.iterations
        if step.iteration % self._params.eval_every and not last:
            return None
        validation: tuple[float | None, float | None] = (None, None)
        if len(self._validation):
            validation = mean_loss_and_accuracy(
                step.weight, step.bias, self._validation, self._processes
            )
        row = Row(step.iteration, self._loss / self._batches, *validation)
        self.rows.append(row)
        self._loss, self._batches = 0.0, 0
        return row

    @property
    def state(self) -> Mapping[str, Any]:
        """The whole history as JSON values, which keep every bit of a float."""
        return {
            "rows": list(map(asdict, self.rows)),
            "loss": self._loss,
            "batches": self._batches,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self.rows = [Row(**row) for row in state["rows"]]
        self._loss, self._batches = state["loss"], state["batches"]
