"""What every rank of a host is doing, in memory that all of them and the launcher can read.

    notice of a rank:  [waits begun and ended][whom it waits for][calls so far] ... [its last calls]

A wait that ends in an error leaves a note of whom it was for, so that it can be told later.

A rank writes down each call before it begins, and each wait. The others read that only to explain
why they wait, and the launcher to explain how a job ended, so a torn read does no harm. What was
written last outlives its writer, so it can be told of a rank that was killed, too.
"""

from __future__ import annotations

import struct

from minipar.comm.frame import MAX_SIGNATURE, SITE_BYTES, Call

KEPT_CALLS = 8
RECORD = struct.Struct(f"<16s{MAX_SIGNATURE}s{SITE_BYTES}s")  # op, signature, site
RECORD_BYTES = 16 + RECORD.size + 8  # group and sequence before it, padding after it
HEAD_BYTES = 64
NOTICE_BYTES = HEAD_BYTES + KEPT_CALLS * RECORD_BYTES
NOTICE_WORDS, HEAD_WORDS, RECORD_WORDS = NOTICE_BYTES // 8, HEAD_BYTES // 8, RECORD_BYTES // 8
# Words of the head. IN_VAIN: the number of calls so far, and 2 + for whom the last of them waited.
WAITS, WHOM, CALLS, SECOND, SECOND_WHOM, FETCHES, HEARD, IN_VAIN = range(8)
WHOM_BITS = 20


class Board:
    """The notices of all ranks."""

    def __init__(self, memory: memoryview) -> None:
        self._memory, self._numbers = memory, memory.cast("q")
        self._written: dict[int, tuple[str, ...]] = {}  # by the place of a record

    def write(self, rank: int, call: Call) -> None:
        """Say what this rank is doing."""
        numbers, counter = self._numbers, rank * NOTICE_WORDS + CALLS
        count = numbers[counter]
        place = rank * NOTICE_WORDS + HEAD_WORDS + count % KEPT_CALLS * RECORD_WORDS
        numbers[place] = call[0]
        numbers[place + 1] = call[1]
        texts = call[2:]
        if self._written.get(place) != texts:  # in a loop it is mostly the same call
            self._written[place] = texts
            raw = RECORD.pack(*(text.encode()[-SITE_BYTES:] for text in texts))
            start = 8 * place + 16
            self._memory[start : start + RECORD.size] = raw
        numbers[counter] = count + 1

    def begin_wait(self, rank: int, whom: int) -> None:
        """Say that this rank waits, and for whom."""
        place = rank * NOTICE_WORDS
        self._numbers[place + WHOM] = whom
        self._numbers[place + WAITS] += 1

    def end_wait(self, rank: int) -> None:
        self._numbers[rank * NOTICE_WORDS + WAITS] += 1

    def second_turns(self, rank: int, whom: int | None = None) -> None:
        """The second thread of this rank begins or ends a piece of work, or a wait for whom."""
        if whom is not None:
            self._numbers[rank * NOTICE_WORDS + SECOND_WHOM] = whom
        self._numbers[rank * NOTICE_WORDS + SECOND] += 1

    def second(self, rank: int) -> int:
        """How often it has done so: even while it waits or has no work."""
        return self._numbers[rank * NOTICE_WORDS + SECOND]

    def fetched_some(self, rank: int) -> None:
        """This rank has copied a part of a large array from another one's memory."""
        self._numbers[rank * NOTICE_WORDS + FETCHES] += 1

    def fetches(self, rank: int) -> int:
        """How often it has done so."""
        return self._numbers[rank * NOTICE_WORDS + FETCHES]

    def waits(self, rank: int) -> int:
        """How many waits of that rank have begun or ended: odd while it waits."""
        return self._numbers[rank * NOTICE_WORDS + WAITS]

    def waits_for(self, rank: int) -> int:
        """The rank that it (or its second thread, if it waits for that) waits for, or did last."""
        whom = self._numbers[rank * NOTICE_WORDS + WHOM]
        return self._numbers[rank * NOTICE_WORDS + SECOND_WHOM] if whom == rank else whom

    def heard(self, rank: int) -> int:
        """How many losses of other ranks that rank has taken note of."""
        return self._numbers[rank * NOTICE_WORDS + HEARD]

    def note_heard(self, rank: int, losses: int) -> None:
        self._numbers[rank * NOTICE_WORDS + HEARD] = losses

    def give_up(self, rank: int, whom: int) -> None:
        """This rank's wait for that one ends in an error."""
        place = rank * NOTICE_WORDS
        self._numbers[place + IN_VAIN] = self._numbers[place + CALLS] << WHOM_BITS | whom + 2

    def awaited(self, rank: int) -> int | None:
        """The rank (or ANY) that it waits for, or waited for in vain in its last call; or None."""
        if self.waits(rank) % 2:
            return self.waits_for(rank)
        calls, whom = divmod(self._numbers[rank * NOTICE_WORDS + IN_VAIN], 1 << WHOM_BITS)
        return whom - 2 if whom and calls == self._numbers[rank * NOTICE_WORDS + CALLS] else None

    def begin_anew(self, rank: int) -> None:
        """That rank has ended, perhaps in the midst of a wait; its last calls stay."""
        self._numbers[rank * NOTICE_WORDS + WAITS] = 0
        self._numbers[rank * NOTICE_WORDS + SECOND] = 0

    def last(self, rank: int) -> list[Call]:
        """The last calls of that rank, up to KEPT_CALLS, in order."""
        count = self._numbers[rank * NOTICE_WORDS + CALLS]
        return [self._call(rank, i) for i in range(max(0, count - KEPT_CALLS), count)]

    def read(self, rank: int) -> str:
        """The last call of that rank, or "none yet"."""
        calls = self.last(rank)
        return str(calls[-1]) if calls else "none yet"

    def did(self, rank: int, call: Call) -> str:
        """What that rank did where another one made `call`, or at last, for an error message."""
        own = next((c for c in self.last(rank) if c[:2] == call[:2] and c.lane == call.lane), None)
        if own is not None:
            return f"rank {rank}'s own call of that number: {own}"
        return f"the last call of rank {rank}: {self.read(rank)}"

    def _call(self, rank: int, i: int) -> Call:
        start = rank * NOTICE_BYTES + HEAD_BYTES + i % KEPT_CALLS * RECORD_BYTES
        group, sequence = self._numbers[start // 8], self._numbers[start // 8 + 1]
        raw = RECORD.unpack_from(self._memory, start + 16)
        texts = (text.rstrip(b"\0").decode(errors="replace") for text in raw)
        return Call(group, sequence, *texts)
