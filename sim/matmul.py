# SPDX-License-Identifier: Apache-2.0
"""GEMMs on the simulated engine: a flat memory that answers its requests, and a host that gives commands.

The memory knows nothing of tiling: it reads the addresses it is asked for. `run` is the door for
everybody; `Board` is what sits around the engine inside the simulator (see `sim.benches.matmul`).
"""

import random
from bisect import bisect_right
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from golden import matmul as golden
from golden.families import FORMAT_CODES
from golden.formats import FORMATS
from hw.fetch import request
from hw.matmul import ports
from hw.matmul.engine import Engine, reads
from sim.job import submit
from sim.ports import Memory, Port, pack, unpack

__all__ = ["Board", "Job", "Run", "run"]

READS = ("weights", "activations", "parameters")


@dataclass
class Job:
    """What to simulate.

    Attributes
    ----------
    config : golden.config.Matmul
    gemms : list of golden.matmul.Gemm
        Queued one after the other.
    stall : float
        Probability with which each port idles or stalls in a cycle.
    latency : int
        Cycles from a request to its first beat, at least 1.
    seed : int
    queue : bool
        Give commands as soon as they are taken, not when the one before has completed.
    commands : dict of int to dict
        For tests: fields of a GEMM's command to overwrite.
    broken : dict of (str, int) to int
        For tests: read port and number of a response on it, and how many beats to add to it or, negative,
        leave out of it.
    """

    config: object
    gemms: list
    stall: float = 0.0
    latency: int = 1
    seed: int = 0
    queue: bool = True
    commands: dict = field(default_factory=dict)
    broken: dict = field(default_factory=dict)


@dataclass
class Run:
    """What came of one GEMM.

    Attributes
    ----------
    y : array (M, N) of codes
    nans : int
    error : int
        A value of `hw.matmul.ports.Error`.
    accepted, finished : int
        Cycles at which the command was taken and its last result (its completion, if it was refused) given.
    weight_beats : list of int
        Cycles in which a beat of weights was taken.
    """

    y: np.ndarray
    nans: int = 0
    error: int = 0
    accepted: int = 0
    finished: int = 0
    weight_beats: list = field(default_factory=list)

    @property
    def cycles(self):
        """From command accept to last result, both counted."""
        return self.finished - self.accepted + 1


def run(job, *, waves=False, x_initial="0"):
    """Simulate a job; return its list of `Run` and the `Counter` of what its ports saw.

    Raises
    ------
    AssertionError
        When a result differs from golden in any bit, or the bench fails otherwise.
    """
    return submit(Engine(job.config), "sim.benches.matmul", job, seed=job.seed, waves=waves, x_initial=x_initial)


class Board:
    """The engine's surroundings: memory, host, and the ports between, one step a cycle.

    `step` is called after each rising edge; it reads what the ports held before it and sets what they
    hold after it.
    """

    def __init__(self, dut, job):
        self.dut, self.job, self.rng = dut, job, random.Random(job.seed)
        self.memory, self.seen, self.cycle = Memory(), Counter(), 0
        config = job.config
        self.layout = {"commands": ports.command(config), "results": ports.result(config),
                       "completions": ports.completion()}
        self.size = {"weights": config.depth, "activations": config.row_bits // 8,
                     "parameters": config.drain * 4}
        self.port = {name: Port(dut, name, source=True) for name in ("commands", *READS)}
        self.port |= {name: Port(dut, name, source=False)
                      for name in ("results", "completions", *(f"{name}_request" for name in READS))}
        self.request = {name: request(beats, rows) for name, (_, beats, rows) in reads(config).items()}
        self.reads = {name: deque() for name in READS}      # (cycle from which on, beat, GEMM)
        self.responses = Counter()
        self.images = []                                    # where each GEMM's operands begin
        self.commands = deque(self._command(n, gemm) for n, gemm in enumerate(job.gemms))
        self.runs = [Run(np.zeros(gemm.shape[:2], FORMATS[gemm.y_format].dtype)) for gemm in job.gemms]
        self.written = [np.zeros(gemm.shape[:2], bool) for gemm in job.gemms]
        self.accepted = self.completed = 0
        self.quiet = 0          # cycles since anything moved

    def _command(self, number, gemm):
        """Put a GEMM's operands into memory; return its command as an integer."""
        config, place = self.job.config, self.memory.place
        self.images.append(len(self.memory.data))
        fields = dict(zip("mnk", gemm.shape, strict=True), tag=number & 0xFF)
        fields |= {f"{name}_format": FORMAT_CODES[getattr(gemm, f"{name}_format")] for name in "awy"}
        image, pitch = golden.activation_image(config, gemm.a_format, gemm.a)
        fields |= {"a": place(image + bytes(config.row_bits // 8)), "a_pitch": pitch,
                   "w": place(golden.weight_image(config, gemm.w_format, gemm.w, gemm.w_scales, gemm.a_format))}
        if gemm.mx:
            image, pitch = golden.scale_image(gemm.a_scales)
            image += bytes(config.row_bits // 8)
            fields |= {"mx": 1, "a_scales": place(image), "a_scales_pitch": pitch}
        slack = bytes(4 * max(config.drain, 8))             # whole beats may be read past an end
        for flag, name in (("row_scaled", "row_scales"), ("column_scaled", "column_scales"),
                           ("biased", "bias"), ("accumulate", "c")):
            values = getattr(gemm, name)
            if values is not None:
                fields |= {flag: 1, name: place(np.asarray(values, np.float32).tobytes() + slack)}
        fields["c_pitch"] = 4 * gemm.shape[1]
        return pack(self.layout["commands"], fields | self.job.commands.get(number, {}))

    @property
    def finished(self):
        return self.completed == len(self.runs)

    def step(self):
        """One cycle."""
        port, stall, random = self.port, self.job.stall, self.rng.random
        moved = {name: each.sample(self.seen) for name, each in port.items()}

        if moved["commands"]:
            self.runs[self.accepted].accepted = self.cycle
            self.accepted += 1
            self.commands.popleft()
        due = self.commands and (self.job.queue or self.accepted == self.completed)
        port["commands"].drive(self.commands[0] if due else None, stall, random)

        for name in READS:
            asked = port[f"{name}_request"]
            if moved[f"{name}_request"]:
                self._read(name, unpack(self.request[name], asked.value))
            asked.take(stall, random)
            beats = self.reads[name]
            if moved[name]:
                owner = beats.popleft()[2]
                if name == "weights":
                    self.runs[owner].weight_beats.append(self.cycle)
            ready = beats and beats[0][0] <= self.cycle
            port[name].drive(beats[0][1] if ready else None, stall, random)

        if moved["results"]:
            self._result(unpack(self.layout["results"], port["results"].value))
        port["results"].take(stall, random)
        if moved["completions"]:
            done = unpack(self.layout["completions"], port["completions"].value)
            finished = self.runs[self.completed]
            assert done["tag"] == self.completed & 0xFF, f"completion of {done['tag']}, not {self.completed}"
            finished.nans, finished.error = done["nans"], done["error"]
            if not finished.finished:
                finished.finished = self.cycle
            self.completed += 1
        port["completions"].take(stall, random)
        self.quiet = 0 if any(moved.values()) else self.quiet + 1
        self.cycle += 1

    def _read(self, name, asked):
        size, width = self.size[name], self.size[name] * 8
        number = self.responses[name]
        self.responses[name] += 1
        addresses = [asked["address"] + row * asked["stride"] + beat * size
                     for row in range(asked["rows"]) for beat in range(asked["beats"])]
        change = self.job.broken.get((name, number), 0)
        addresses = (addresses + addresses[-1:] * max(change, 0))[:len(addresses) + change or None]
        ready = self.cycle + self.job.latency - 1
        owner = bisect_right(self.images, asked["address"]) - 1
        for n, address in enumerate(addresses):
            last = n == len(addresses) - 1
            self.reads[name].append((ready, self.memory.beat(address, size) | last << width, owner))

    def _result(self, beat):
        number = self.completed
        assert beat["tag"] == number & 0xFF, f"a result of command {beat['tag']} during command {number}"
        run, written = self.runs[number], self.written[number]
        width = FORMATS[self.job.gemms[number].y_format].width
        places = slice(beat["column"], beat["column"] + beat["count"])
        assert not written[beat["row"], places].any(), f"row {beat['row']}, {places} of command {number} came twice"
        written[beat["row"], places] = True
        run.y[beat["row"], places] = [beat["data"] >> n * width & (1 << width) - 1
                                      for n in range(beat["count"])]
        if beat["last"]:
            run.finished = self.cycle
            assert written.all(), f"command {number} ended with {(~written).sum()} results missing"

    def check(self):
        """Compare all results of commands without an error with golden, bit for bit, and the sticky error."""
        errors = [run.error for run in self.runs if run.error]
        assert int(self.dut.error.value) == (errors[0] if errors else 0)
        for n, (gemm, run) in enumerate(zip(self.job.gemms, self.runs, strict=True)):
            if run.error:
                continue
            config = self.job.config
            y, nans = golden.matmul(config.family, gemm, (config.rows, config.lanes))
            wrong = np.argwhere(run.y != y)
            assert not len(wrong), (
                f"GEMM {n} {gemm.shape}: {len(wrong)} results differ, first at {wrong[0]}: "
                f"{run.y[tuple(wrong[0])]:#x}, golden {y[tuple(wrong[0])]:#x}")
            assert run.nans == nans, f"GEMM {n}: {run.nans} NaN counted, golden {nans}"
