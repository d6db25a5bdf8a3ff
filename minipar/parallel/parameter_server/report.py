"""What a server has seen: every push that it applied, and how stale it was."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple


class Record(NamedTuple):
    """One push that was applied. Versions are those of the server: its updates so far."""

    worker: int
    clock: int
    pulled: int  # version of the weights that the push was computed with
    applied: int  # version that it was applied to

    @property
    def staleness(self) -> int:
        """How many updates its worker had not seen."""
        return self.applied - self.pulled


@dataclass
class Report:
    """Of one server."""

    skipped: int = 0  # pushes with NaN
    repeated: int = 0  # pushes that came again
    most_ahead: int = 0  # clocks that a worker was ahead of the slowest when it got weights
    bytes_in: int = 0
    bytes_out: int = 0
    lost_workers: list[int] = field(default_factory=list)
    lost_pushes: dict[int, int] = field(default_factory=dict)  # by worker: acknowledged, and gone
    numbers: array[int] = field(default_factory=lambda: array("q"), init=False)  # of the records

    def note(self, record: Record) -> None:
        self.numbers.extend(record)

    @property
    def records(self) -> list[Record]:
        """All pushes that were applied, in that order."""
        numbers, n = self.numbers, len(Record._fields)
        return [Record(*numbers[i : i + n]) for i in range(0, len(numbers), n)]

    @property
    def applied(self) -> int:
        return len(self.numbers) // len(Record._fields)

    def staleness(self) -> dict[int, int]:
        """How many pushes had which staleness."""
        return dict(sorted(Counter(record.staleness for record in self.records).items()))

    def summary(self) -> dict[str, Any]:
        """All that fits into JSON: the counts, and how many pushes had which staleness."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "numbers"}
        return {"applied": self.applied, "staleness": self.staleness(), **found}
