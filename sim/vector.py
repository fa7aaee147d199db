# SPDX-License-Identifier: Apache-2.0
"""Instructions on the simulated vector engine: a memory that answers its requests and takes its results, and a host.

`run` is the door for everybody; `Board` is what sits around the engine inside the simulator (see `sim.benches.vector`).
"""

import random
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from golden import vector as golden
from golden.families import FORMAT_CODES
from hw.fetch import request
from hw.vector import ports
from hw.vector.engine import Engine
from hw.vector.walker import reads
from sim.job import submit
from sim.ports import Memory, Port, pack, unpack

__all__ = ["Board", "Call", "Job", "Run", "run", "run_all"]

GUARD = 16      # bytes around rows of results that must stay as they are


@dataclass
class Call:
    """An instruction and its operands, see `golden.vector.execute`.

    Attributes
    ----------
    instruction : golden.vector.Instruction
    x : array (rows, length) of codes
    y : array of codes, or None
    fields : dict
        For tests: fields of the instruction to overwrite.
    """

    instruction: golden.Instruction
    x: np.ndarray
    y: np.ndarray | None = None
    fields: dict = field(default_factory=dict)


@dataclass
class Job:
    """What to simulate.

    Attributes
    ----------
    config : golden.config.Vector
    calls : list of Call
        Queued one after the other.
    stall : float
        Probability with which each port idles or stalls in a cycle.
    latency : int
        Cycles from a request to its first word, at least 1.
    seed : int
    queue : bool
        Give instructions as soon as they are taken, not when the one before has completed.
    reset : int
        For tests: begin all over again after so many cycles.
    broken : dict of (str, int) to int
        For tests: read port and number of a response on it, and how many words to add to it or, negative, leave out.
    """

    config: object
    calls: list
    stall: float = 0.0
    latency: int = 1
    seed: int = 0
    queue: bool = True
    reset: int = 0
    broken: dict = field(default_factory=dict)


@dataclass
class Run:
    """What came of one call.

    Attributes
    ----------
    result : golden.vector.Result
        As the engine wrote it.
    error : int
        A value of `hw.vector.ports.Error`.
    accepted, first, finished : int
        Cycles at which the instruction was taken, its first beat of x came, and its last result left.
    """

    result: golden.Result | None = None
    error: int = 0
    accepted: int = 0
    first: int = 0
    finished: int = 0

    @property
    def cycles(self):
        """From the instruction's being taken to its last result, both counted."""
        return self.finished - self.accepted + 1


def run(job, *, waves=False, x_initial="0"):
    """Simulate a job; return its list of `Run` and the `Counter` of what its ports saw.

    Raises
    ------
    AssertionError
        When a result differs from golden in any bit, or the bench fails otherwise.
    """
    return run_all([job], waves=waves, x_initial=x_initial)[0]


def run_all(jobs, *, waves=False, x_initial="0"):
    """Simulate jobs of one configuration one after the other, each from a reset; return what `run` does, of each."""
    return submit(Engine(jobs[0].config), "sim.benches.vector", jobs, seed=jobs[0].seed, waves=waves,
                  x_initial=x_initial)


class Board:
    """The engine's surroundings, one step a cycle: called after each rising edge, `step` reads what the ports held
    before it and sets what they hold after it. `due` is what golden says of each call, if that is known already.

    Rows lie close together in `memory`, but far apart in the engine's 32 bits of addresses, modulo `span` of which
    they are where they are: so all bits of addresses and pitches matter.
    """

    def __init__(self, dut, job, due=None):
        self.dut, self.job, self.rng = dut, job, random.Random(job.seed)
        self.memory, self.seen, self.cycle, self.quiet = Memory(), Counter(), 0, 0
        lanes = job.config.lanes
        self.size = 4 * lanes
        self.layout = {"instructions": ports.instruction(), "results": ports.result(lanes),
                       "completions": ports.completion(), "request": request(*reads(job.config))}
        self.port = {name: Port(dut, name, source=True) for name in ("instructions", "x", "y")}
        self.port |= {name: Port(dut, name, source=False)
                      for name in ("results", "completions", "x_request", "y_request")}
        self.due = due or [golden.execute(call.instruction, call.x, call.y, lanes=lanes) for call in job.calls]
        self.runs = [Run() for _ in job.calls]
        self.areas = []                                     # of each call: where its results and scalars go
        self.placed = []                                    # name, address, pitch and number of rows, in turn
        self.instructions = deque(self._far([self._instruction(n, call) for n, call in enumerate(job.calls)]))
        self.left = np.frombuffer(bytearray(self.memory.data), np.uint8)     # memory as golden leaves it
        self.reads = {name: deque() for name in "xy"}       # (cycle from which on, word)
        self.responses = Counter()
        self.accepted = self.completed = 0

    def _rows(self, fields, name, rows):
        """Place rows of bytes, some bytes apart; note and return address and pitch."""
        pitch = rows.shape[1] + self.rng.randrange(8)
        rows = np.hstack([rows, np.random.default_rng(self.rng.getrandbits(32)).integers(
            0, 256, (len(rows), pitch - rows.shape[1]), np.uint8)])
        address = self.memory.place(rows.tobytes() + self.rng.randbytes(self.size))
        fields |= {name: address, f"{name}_pitch": pitch}
        self.placed.append((fields, name, len(rows)))
        return address, pitch

    def _instruction(self, number, call):
        """Put a call's operands into memory; return the fields of its instruction."""
        given, due = call.instruction, self.due[number]
        fields = {"tag": number & 0xFF, "operation": given.operation, "quantize": given.quantize, "k": given.k,
                  "rows": len(call.x), "length": call.x.shape[1],
                  "second": golden.second(call.y, call.x.shape, given.y_format),
                  **{name: int(golden.code(getattr(given, name))) for name in ("alpha", "beta")},
                  **{name: FORMAT_CODES.get(getattr(given, name), 0)
                     for name in ("x_format", "y_format", "result_format")}}
        self._rows(fields, "x", golden.image(given.x_format, call.x))
        if call.y is not None:
            self._rows(fields, "y", golden.image(given.y_format, call.y))
        areas = {}
        for name, found in (("result", due.codes), ("scalars", due.scalars)):
            if found is not None:
                areas[name] = (golden.image(given.result_format, found) if name == "result" else
                               golden.scalar_image(given.quantize, found))
                blank = self.rng.randbytes(areas[name].size)
                self.memory.place(self.rng.randbytes(GUARD))
                place = self._rows(fields, name, np.frombuffer(blank, np.uint8).reshape(areas[name].shape))
                self.memory.place(self.rng.randbytes(GUARD))
                areas[name] = *place, areas[name]
        self.areas.append(areas)
        return fields

    def _far(self, instructions):
        """Move rows far apart; return instructions as integers."""
        self.span = 1 << len(self.memory.data).bit_length()
        spans = (1 << 32) // self.span
        self.spans = np.full(len(self.memory.data), -1)     # of each byte: which of them it is in
        for fields, name, rows in self.placed:
            first, step = self.rng.randrange(spans), self.rng.randrange(spans)
            address, pitch = fields[name], fields[f"{name}_pitch"]
            for n in range(rows):
                self.spans[address + n * pitch:address + (n + 1) * pitch] = (first + n * step) % spans
            fields[name] += first * self.span
            fields[f"{name}_pitch"] = pitch + step * self.span if rows > 1 or name != "y" else 0
        return [pack(self.layout["instructions"], fields | call.fields)
                for fields, call in zip(instructions, self.job.calls, strict=True)]

    def _near(self, address):
        """Where an address is in memory, if anywhere."""
        span, place = divmod(address % (1 << 32), self.span)
        return place if place < len(self.spans) and self.spans[place] == span else None

    @property
    def finished(self):
        return self.completed == len(self.runs)

    def step(self):
        """One cycle."""
        port, stall, random = self.port, self.job.stall, self.rng.random
        moved = {name: each.sample(self.seen) for name, each in port.items()}
        if moved["instructions"]:
            self.runs[self.accepted].accepted = self.cycle
            self.accepted += 1
            self.instructions.popleft()
        due = self.instructions and (self.job.queue or self.accepted == self.completed)
        port["instructions"].drive(self.instructions[0] if due else None, stall, random)

        for name in "xy":
            asked = port[f"{name}_request"]
            if moved[f"{name}_request"]:
                self._read(name, unpack(self.layout["request"], asked.value))
            asked.take(stall, random)
            words = self.reads[name]
            if moved[name]:
                words.popleft()
            ready = words and words[0][0] <= self.cycle
            port[name].drive(words[0][1] if ready else None, stall, random)

        if moved["results"]:
            self._result(unpack(self.layout["results"], port["results"].value))
        port["results"].take(stall, random)
        if moved["completions"]:
            done = unpack(self.layout["completions"], port["completions"].value)
            assert done["tag"] == self.completed & 0xFF, f"completion of {done['tag']}, not {self.completed}"
            one = self.runs[self.completed]
            one.error, one.nans = done["error"], done["nans"]
            self._compare(self.completed)
            self.completed += 1
        port["completions"].take(stall, random)
        self.quiet = 0 if any(moved.values()) else self.quiet + 1
        self.cycle += 1

    def _read(self, name, asked):
        number = self.responses[name]
        self.responses[name] += 1
        addresses = [asked["address"] + row * asked["stride"] + word * self.size
                     for row in range(asked["rows"]) for word in range(asked["beats"])]
        change = self.job.broken.get((name, number), 0)
        addresses = (addresses + addresses[-1:] * max(change, 0))[:len(addresses) + change or None]
        ready = self.cycle + self.job.latency - 1
        for n, address in enumerate(addresses):
            last = n == len(addresses) - 1
            place = self._near(address)
            word = self.rng.getrandbits(8 * self.size) if place is None else self.memory.beat(place, self.size)
            self.reads[name].append((ready, word | last << 8 * self.size))

    def _result(self, given):
        number = self.completed
        assert given["tag"] == number & 0xFF, f"a result of instruction {given['tag']} during {number}"
        count, place = given["bytes"], self._near(given["address"])
        assert 0 < count <= self.size and place is not None and place + count <= len(self.memory.data)
        self.memory.data[place:place + count] = given["data"].to_bytes(self.size, "little")[:count]
        self.runs[number].finished = self.cycle

    def _compare(self, number):
        """Compare what a call left with golden; mark the places of its results as written."""
        call, one, found = self.job.calls[number], self.runs[number], np.frombuffer(self.memory.data, np.uint8)
        for name, (address, pitch, rows) in self.areas[number].items():
            for n, row in enumerate(rows):
                place = slice(address + n * pitch, address + n * pitch + len(row))
                if one.error == ports.Error.RESPONSE.value:
                    self.left[place] = found[place]         # of what came in place of operands
                elif not one.error:
                    self.left[place] = row
                    wrong = np.flatnonzero(found[place] != row)
                    assert not len(wrong), (
                        f"call {number}, {call.instruction} on {call.x.shape}: {name}, row {n}: {len(wrong)} bytes "
                        f"differ, first byte {wrong[0]}: {found[place][wrong[0]]:#x}, golden {row[wrong[0]]:#x}")
        if not one.error:
            assert one.nans == self.due[number].nans, (
                f"call {number}, {call.instruction}: {one.nans} NaN counted, golden {self.due[number].nans}")
            one.result = self.due[number]

    def check(self):
        """At the end: nothing but results was written, and the error that sticks is the first one."""
        errors = [one.error for one in self.runs if one.error]
        assert int(self.dut.error.value) == (errors[0] if errors else 0)
        found = np.frombuffer(self.memory.data, np.uint8)
        assert (self.left == found).all(), f"byte {np.flatnonzero(self.left != found)[0]} is no result and was written"
