"""The processes that share the work of a stage."""

from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class ProcessGroup:
    """`count` processes; this one is number `rank`, counted from 0.

    Here it is the only one. `stages.training.processes` has groups of several, which talk through
    torch.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that prints, and that moves files to their places."""
        return self.rank == 0

    def share(self, number: int) -> range:
        """Which of `number` items in a row are this process's."""
        return range(number * self.rank // self.count, number * (self.rank + 1) // self.count)

    def gather(self, value: Value) -> list[Value]:
        """Return, in every process, what each passes, in order of rank; waits for all of them."""
        return [value]


ALONE = ProcessGroup()
