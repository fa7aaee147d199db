# SPDX-License-Identifier: Apache-2.0
"""How long a program takes, before it runs: each engine's work, in cycles, and what it has to wait for.

Instructions are dispatched, queued and begun as `hw/sequencer` does. What one takes by itself is known from how its
engine is built; the channel, which all share, is a flow of beats: keys, values and rows go first, weights take the
rest as long as there is room for them, and the matmul engine takes weights out.
"""

from collections import deque
from dataclasses import dataclass, field
from functools import cache

from golden import matmul
from golden.families import FORMAT_CODES
from golden.formats import FORMATS
from golden.isa import HEAD, WORDS, Control, Engine, Heads, Instruction, Operation, Quantize
from golden.sequencer import run
from sw.compiler.layout import Layout
from sw.compiler.program import Shape, program

__all__ = ["Prediction", "Span", "busy", "predict"]

NAMES = {code: name for name, code in FORMAT_CODES.items()}
QUEUE = 6               # cycles, beside its words, from an instruction that leaves a queue to the next one's offer
TOLD = 1                # from the end of an instruction to the begin of one that has waited for it
DISPATCH = {Control.NEXT: 6, Control.SWAP: 9}
START = 20              # from the host's order to the program's first beat, and from its last word to its first head
MEMORY = 16             # from a request to its first beat, channel and scratchpad included
AHEAD = 64              # beats of weights that are owed when another asks
SHARES = {Engine.LOAD: 0.5, Engine.HEADS: 0.75, Engine.STORE: 1.0}     # of the channel's beats, while weights come
VECTOR = {Operation.MUL: 29, Operation.ADD: 29, Operation.ROPE: 30, Operation.SILU: 30, Operation.RMS_NORM: 63,
          Operation.SOFTMAX: 63, Operation.TOP_K: 43}
QUANTIZED = 13          # cycles more
GAP, LAST = 19, 85      # cycles beside a head's beats; from the last beat to the last result
LEAST, PASS = 64, 91    # cycles of a head, and of a pass through all of them, at least
EXTEND = 12


@dataclass(frozen=True)
class Span:
    """An instruction, from its first cycle to the one in which it is done."""

    pc: int
    instruction: Instruction
    begin: float
    end: float


@dataclass(frozen=True)
class Prediction:
    """Cycles of a program, and when its instructions take place."""

    cycles: int
    spans: list


def busy(spans, engine):
    """Cycles in which an engine has an instruction, by its `Span`."""
    total, until = 0, -1
    for span in sorted((each for each in spans if each.instruction.engine is engine), key=lambda span: span.begin):
        total += max(0, span.end - max(span.begin - 1, until))
        until = max(until, span.end)
    return total


@dataclass
class _Cost:
    """What an instruction takes: `work` cycles at full speed, in which it moves `beats`; and `latency` cycles more, in
    which the next one works. `weights` beats are taken from those read ahead."""

    work: float
    latency: float
    beats: float = 0
    weights: float = 0


@dataclass
class _Unit:
    """An engine."""

    queue: deque = field(default_factory=deque)
    offered: float = 0          # when the next may begin
    now: tuple | None = None    # (dispatched, cost, begin)
    left: float = 0             # of its work
    landing: deque = field(default_factory=deque)       # (when, dispatched, begin)
    done: int = 0


def predict(layout: Layout, shape: Shape, context=0):
    """How long a program takes.

    Parameters
    ----------
    layout : sw.compiler.layout.Layout
    shape : sw.compiler.program.Shape
    context : int or list of int
        Tokens that its sequences have at the begin.
    """
    lengths = [context] * shape.sequences if isinstance(context, int) else [*context]
    instructions, _ = program(layout, shape)
    return _Run(layout.chip, instructions, dict(enumerate(lengths, shape.first))).whole()


class _Run:
    """A program on its way; see `predict`."""

    def __init__(self, chip, program, lengths):
        self.chip, self.program, self.lengths = chip, program, lengths
        self.units = {engine: _Unit() for engine in SHARES | dict.fromkeys((Engine.WEIGHTS, Engine.MATMUL,
                                                                            Engine.VECTOR))}
        self.room = chip.memory.prefetch / chip.memory.channel
        self.to_come, self.here = 0, 0          # beats of weights: that are asked for, that have been read ahead
        self.now, self.spans = 0.0, []
        self.gemm = cache(lambda m, n, k, a, w, mx: matmul.cycles(
            chip.matmul, (m, n, k), a_format=NAMES[a], w_format=NAMES[w], mx=bool(mx)))

    def whole(self):
        """To its end."""
        size = len(self.program) + 1
        ready = START + size * (WORDS + -(-4 * WORDS // self.chip.memory.channel)) + MEMORY + START
        for dispatched, cost in self._dispatched():
            ready += cost
            unit = self.units[dispatched.engine]
            self._until(lambda ready=ready, unit=unit: (
                None if len(unit.queue) < self.chip.sequencer.queue and self.now >= ready else ready))
            ready = max(ready, self.now)
            unit.queue.append((dispatched, ready + len(dispatched.words)))
        self._until(lambda: 0 if any(unit.queue or unit.now or unit.landing for unit in self.units.values()) else None)
        return Prediction(round(self.now + 3), self.spans)

    def _dispatched(self):
        """What is dispatched, with the cycles that it takes, and all of `CONTROL` since the last."""
        costs = [DISPATCH.get(each.opcode, HEAD + len(each.names)) for each in self.program]
        before = -1
        for each in run([*self.program, Instruction(Control.END)]):
            between = range(before + 1, each.pc)
            if before >= each.pc:               # back to the begin of a loop
                end = next(pc for pc in range(before + 1, len(costs)) if self.program[pc].opcode is Control.NEXT)
                between = range(before + 1, end + 1)
            yield each, costs[each.pc] + sum(costs[pc] for pc in between)
            before = each.pc

    def _until(self, wanted):
        """Go on until `wanted` gives None; it gives when it may next."""
        while (at := wanted()) is not None:
            self._begin()
            times = [at] if at > self.now else []
            rates, inflow = self._rates()
            for engine, unit in self.units.items():
                times += [unit.landing[0][0]] if unit.landing else []
                if unit.now:
                    times += [self.now + unit.left / rates[engine]] if rates[engine] > 0 else []
                elif unit.queue:
                    times += [when for when in (max(unit.offered, unit.queue[0][1]),) if when > self.now]
            taken = self._taken(rates)
            if inflow > taken:
                times += [self.now + min((self.room - self.here) / (inflow - taken), self.to_come / inflow)]
            elif inflow:
                times += [self.now + self.to_come / inflow]
            if taken > inflow and self.here > 0:
                times += [self.now + self.here / (taken - inflow)]
            self._advance(min(each for each in times if each > self.now - 1e-9), rates, inflow)

    def _begin(self):
        """Whoever can begins."""
        for unit in self.units.values():
            while not unit.now and unit.queue:
                dispatched, offered = unit.queue[0]
                if max(offered, unit.offered) > self.now or any(
                        self.units[other].done < count for other, count in dispatched.after.items()):
                    break
                unit.queue.popleft()
                unit.offered = self.now + len(dispatched.words) + QUEUE
                cost = self._cost(dispatched)
                unit.now, unit.left = (dispatched, cost, self.now), max(cost.work, 1e-6)

    def _taken(self, rates):
        """Weights that the matmul engine takes, in beats a cycle."""
        unit = self.units[Engine.MATMUL]
        return rates[Engine.MATMUL] * unit.now[1].weights / unit.now[1].work if unit.now else 0

    def _rates(self):
        """How fast each engine works, 1 at most, and beats of weights a cycle."""
        rates = {engine: 1.0 if unit.now else 0.0 for engine, unit in self.units.items()}
        full = self.here == self.room
        hungry = self.to_come > 0 and not full
        beats = {engine: unit.now[1].beats / unit.now[1].work for engine, unit in self.units.items()
                 if unit.now and unit.now[1].beats}
        moves = {engine: min(rate, SHARES[engine]) if hungry else rate for engine, rate in beats.items()}
        total = sum(moves.values())
        for engine in moves:
            moves[engine] /= max(total, 1)
            rates[engine] = moves[engine] / beats[engine]
        inflow = 1 - sum(moves.values()) if self.to_come > 0 else 0
        wanted = self._taken(rates)
        if full:
            inflow = min(inflow, wanted)
        if wanted and self.here == 0:
            rates[Engine.MATMUL] *= min(1, inflow / wanted)
        return rates, inflow

    def _advance(self, to, rates, inflow):
        """Time passes."""
        passed, taken = to - self.now, self._taken(rates)
        self.now = to
        self.to_come = _snapped(self.to_come - passed * inflow, 0)
        self.here = _snapped(_snapped(self.here + passed * (inflow - taken), 0), self.room)
        for engine, unit in self.units.items():
            if unit.now:
                unit.left -= passed * rates[engine]
                if unit.left <= 1e-6:
                    dispatched, cost, begin = unit.now
                    unit.landing.append((self.now + cost.latency + TOLD, dispatched, begin))
                    unit.now = None
            while unit.landing and unit.landing[0][0] <= self.now + 1e-6:
                when, dispatched, begin = unit.landing.popleft()
                unit.done += 1
                self.spans.append(Span(dispatched.pc, dispatched.instruction, begin, when - TOLD))

    def _cost(self, dispatched):
        """What an instruction takes."""
        given, opcode, beat = dispatched.instruction.fields, dispatched.instruction.opcode, self.chip.memory.channel
        given = {name: given.get(name, 0) for name in dispatched.instruction.names}
        match dispatched.engine:
            case Engine.WEIGHTS:
                self.to_come += given["bytes"] / beat
                return _Cost(1, 0)
            case Engine.LOAD | Engine.STORE:
                beats = given["rows"] * -(-given["bytes"] // beat) * given.get("count", 1)
                behind = AHEAD if dispatched.engine is Engine.LOAD and self.to_come and self.here < self.room else 0
                return _Cost(beats, MEMORY + behind, beats)
            case Engine.MATMUL:
                return self._of_gemm(**given)
            case Engine.VECTOR:
                return self._of_vector(opcode, **given)
        if opcode is Heads.ATTEND:
            return self._of_attention(**given)
        if opcode is Heads.EXTEND:
            self.lengths[given["sid"]] += given["tokens"]
        return _Cost(EXTEND, 0)

    def _of_gemm(self, m, n, k, a_format, w_format, mx, row_scaled, column_scaled, biased, accumulate, **_):
        config, names = self.chip.matmul, (NAMES[a_format], NAMES[w_format])
        whole = self.gemm(m, n, k, a_format, w_format, mx)
        tiles, each = -(-k // matmul.tile_depth(config, *names)), matmul.slices(config, *names)
        work = sum(tiles * max(rows, -(-columns // each)) for _, _, rows, columns in matmul.blocks(config, (m, n, k)))
        weights = sum(matmul.weight_bytes(config, names[1], columns, k, bool(mx), names[0])
                      for _, _, _, columns in matmul.blocks(config, (m, n, k))) / self.chip.memory.channel
        latency = max(whole - work, 0)
        if config.row_bits == 8 * self.chip.word:       # activations take a bank in each cycle: others come in between
            scalars = m * row_scaled + config.cols * (column_scaled + biased + m * accumulate)
            work += -(-n // config.cols) * 4 * scalars / self.chip.word / self.chip.memory.banks
        return _Cost(work, latency, weights=weights)

    def _of_vector(self, operation, rows, length, quantize, k, **_):
        beats = -(-length // self.chip.vector.lanes)
        latency, passes = VECTOR[operation], max(k, 1) if operation is Operation.TOP_K else 1
        own = bool(quantize)
        if own or operation in (Operation.RMS_NORM, Operation.SOFTMAX):
            latency += beats            # a row leaves when its sum, or its largest, is known
        if quantize == Quantize.ROW and operation is not Operation.RMS_NORM:
            latency += QUANTIZED - 1
        return _Cost(rows * passes * (beats + (quantize == Quantize.ROW)), latency)

    def _of_attention(self, sid, rows, group, window, **_):
        kv, beat = self.chip.kvcache, self.chip.memory.channel
        together, end, beats, work = self.chip.attention.group // group, self.lengths[sid] - rows, 0, 0
        width = FORMATS["e4m3" if kv.format == "fp8" else "bf16"].width // 8
        for first in range(0, rows, together):
            seen = end + min(first + together, rows)
            seen = min(seen, window + together - 1) if window else seen
            own = 2 * (seen * kv.head_dim * width / beat + (-(-seen * 2 // beat) if kv.format == "fp8" else 0))
            beats += kv.kv_heads * own
            work += max(kv.kv_heads * max(own + GAP, LEAST), PASS)
        return _Cost(work, LAST, beats)


def _snapped(value, bound):
    """A value that floats made almost the bound is the bound."""
    return bound if abs(value - bound) < 1e-6 else value
