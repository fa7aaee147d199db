# SPDX-License-Identifier: Apache-2.0
"""A tile: all engines of a chip, the scratchpad between them, the channel to memory, and the host's port."""

from functools import cached_property

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, Mux, ResetSignal, Signal
from amaranth.lib.wiring import Out, connect, flipped

from golden.config import check_tile
from golden.isa import Engine
from golden.registers import COUNTERS, ENGINES, EVENTS, IDENTITY, State
from hw.axi import Axi4
from hw.emit import Block
from hw.matmul import engine as matmul
from hw.memory.channel import Channel
from hw.memory.load import Load
from hw.memory.scratchpad import Scratchpad
from hw.memory.store import Store
from hw.memory.weights import Weights
from hw.sequencer.sequencer import Sequencer
from hw.tile.counters import Counters
from hw.tile.engines import GemmUnit, VectorUnit
from hw.tile.heads.heads import Heads
from hw.tile.host import AxiLite, Host
from hw.vector import walker as vector

__all__ = ["Tile"]

AHEAD = 64          # beats of `LOAD` that are under way
STEADY = ("host_port", "counters", "sequencer", "channel")      # not reset with the engines


class Tile(Block):
    """Runs programs of `golden.isa`; `golden.tile` is its specification.

    Engines are in a clock domain of their own, which is reset when one of them is given up: the KV cache forgets its
    sequences then.

    Parameters
    ----------
    chip : golden.config.Chip
        One that `check_tile` lets pass.

    Members
    -------
    axi : Out(Axi4(...))
        To memory.
    host : In(AxiLite())
        Registers, as `golden.registers` has them.
    irq : Out(1)
    events : Out(len(EVENTS))
        What takes place in this cycle: for simulations.
    """

    def __init__(self, chip):
        check_tile(chip)
        self.chip = chip
        super().__init__({
            "axi": Out(Axi4(address_bits=chip.kvcache.address_bits, beat=chip.memory.channel, id_bits=3)),
            "host": Out(AxiLite()), "irq": Out(1), "events": Out(len(EVENTS)),
        })

    @property
    def name(self):
        return f"tile_{self.chip.name}"

    @cached_property
    def parts(self):
        """All of its blocks by name."""
        chip = self.chip
        memory, kv = chip.memory, chip.kvcache
        beat, size, burst = memory.channel, memory.scratchpad, min(256, 4096 // memory.channel)
        reads = matmul.reads(chip.matmul)
        width, requests, _ = reads["weights"]
        group, own = chip.attention.group, kv.head_dim // kv.lanes          # words of a head
        row, sums, lanes, heads = (chip.matmul.row_bits // 8, 4 * chip.matmul.drain, 4 * chip.vector.lanes,
                                   4 * kv.lanes)                            # bytes of a beat
        results = min(max(8, 1 << (4 * group - 1).bit_length()), chip.word) # bytes: as fast as attention has them
        return {
            "host_port": Host(), "counters": Counters(len(COUNTERS)),
            "sequencer": Sequencer(chip.sequencer, beat),
            "channel": Channel(kv.address_bits, beat, memory.burst, kv.patience),
            "load": Load(beat, size, min(burst, AHEAD), AHEAD),
            "weights": Weights(beat, width // 8, memory.prefetch, memory.burst, requests),
            "gemm": GemmUnit(chip.matmul), "vector": VectorUnit(chip.vector), "heads": Heads(kv, group, results),
            "store": Store(beat, size, burst),
            "scratchpad": Scratchpad(size, memory.banks, chip.word, (
                (row, matmul.unit(chip.matmul), *reads["activations"][1:]), (sums, sums, *reads["parameters"][1:]),
                *[(lanes, lanes, *vector.reads(chip.vector))] * 2,
                (heads, heads, group * own, group), (heads, heads, kv.kv_heads * own, 2),
                (beat, beat, size // beat, 1), (4, 4, 1, 1),
            ), ((sums, chip.matmul.drain), (lanes, 1), (results, 4), (beat, beat))),
        }

    def elaborate(self, platform):
        m, chip = Module(), self.chip
        m.domains.engines = engines = ClockDomain("engines")
        resets = Signal()
        m.d.comb += engines.clk.eq(ClockSignal()), engines.rst.eq(ResetSignal() | resets)
        for name, part in self.parts.items():
            m.submodules[name] = part if name in STEADY else DomainRenamer("engines")(part)
        host, counters, sequencer, channel, load, weights, gemm, vectors, heads, store, scratchpad = self.parts.values()
        connect(m, host.port, flipped(self.host))
        connect(m, channel.axi, flipped(self.axi))

        units = {Engine.LOAD: load, Engine.WEIGHTS: weights, Engine.MATMUL: gemm, Engine.VECTOR: vectors,
                 Engine.HEADS: heads, Engine.STORE: store}
        for engine, unit in units.items():
            name = engine.name.lower()
            connect(m, getattr(sequencer, name), unit.i)
            done = getattr(sequencer, f"{name}_done")
            m.d.comb += [
                done.valid.eq(unit.done.valid), unit.done.ready.eq(1), done.payload.error.eq(unit.done.payload.error),
            ]

        # Memory
        connect(m, sequencer.memory, channel.instructions)
        connect(m, load.memory, channel.load)
        connect(m, weights.memory, channel.weights)
        connect(m, store.memory, channel.store)
        connect(m, heads.axi, channel.kv)
        connect(m, gemm.weights_request, weights.request)
        connect(m, weights.o, gemm.weights)

        # The scratchpad
        readers = [(part, getattr(part, f"{name}_request"), getattr(part, name)) for part, name in (
            (gemm, "activations"), (gemm, "parameters"), (vectors, "x"), (vectors, "y"), (heads, "queries"),
            (heads, "rows"))]
        readers += [(store, store.request, store.response), (load, load.index_request, load.index)]
        writers = [(part, part.write) for part in (gemm, vectors, heads, load)]
        parties = [part for part, *_ in (*readers, *writers)]
        m.d.comb += sequencer.astray.eq(Cat(
            Cat(scratchpad.fault[n] for n, part in enumerate(parties) if part is unit).any()
            for unit in units.values()))
        for n, (_, request, response) in enumerate(readers):
            connect(m, request, getattr(scratchpad, f"request{n}"))
            connect(m, getattr(scratchpad, f"response{n}"), response)
        for n, (_, write) in enumerate(writers):
            connect(m, write, getattr(scratchpad, f"write{n}"))

        # The host
        given, told = host.o, host.i
        stands, done, starts = Signal(), Signal(), Signal()
        idle = sequencer.status.state == State.IDLE
        m.d.sync += starts.eq(Mux(starts, ~sequencer.start.ready, given.control.start & idle & ~stands))
        m.d.comb += [
            sequencer.start.valid.eq(starts),
            sequencer.start.payload.address.eq(given.address.value),
            sequencer.start.payload.count.eq(given.count.value),
            *(sequencer.registers[n].eq(given[f"register{n}"].value) for n in range(1, len(sequencer.registers))),
            sequencer.stop.eq(given.control.stop), sequencer.clear.eq(given.control.clear),
            sequencer.restart.eq(given.control.reset),
            stands.eq(sequencer.error.code != 0),
            told.identity.value.eq(IDENTITY),
            told.status.state.eq(sequencer.status.state), told.status.done.eq(done), told.status.error.eq(stands),
            told.status.dead.eq(channel.dead), told.status.pc.eq(sequencer.status.pc),
            told.error.code.eq(sequencer.error.code), told.error.engine.eq(sequencer.error.engine),
            told.error.pc.eq(sequencer.error.pc), told.detail.value.eq(sequencer.error.detail),
            counters.freeze.eq(given.control.freeze), counters.zero.eq(given.control.zero),
            counters.index.eq(given.counter.index),
            told.counter_low.value.eq(counters.value[:32]), told.counter_high.value.eq(counters.value[32:]),
            self.irq.eq(given.control.interrupt & (done | (sequencer.status.state == State.ERROR))),
            scratchpad.clear.eq(given.control.clear),
            heads.clear.eq(given.control.clear), heads.pool.eq(chip.kvcache.blocks),
            heads.base.eq(given.kv_base.value), heads.host_base.eq(given.kv_host_base.value),
        ]
        with m.If(given.control.clear | given.control.start):
            m.d.sync += done.eq(0)
        with m.If(sequencer.finished):
            m.d.sync += done.eq(1)

        # When an engine is given up, all are reset, once the channel owes nothing to them.
        m.d.comb += [
            resets.eq(sequencer.reset), channel.flush.eq(sequencer.reset),
            sequencer.resumed.eq(sequencer.reset & channel.idle),
            weights.clear.eq(sequencer.cancel),
            sequencer.activity.eq(Cat(channel.beats).any() | Cat(
                asked.valid & asked.ready for _, asked, *_ in (*writers, *readers)).any()),
        ]

        # What is counted
        running = Signal()
        m.d.comb += running.eq((sequencer.status.state != State.IDLE) & (sequencer.status.state != State.ERROR))
        events = {
            "cycles": running, "weights_full": weights.full, "weights_empty": weights.empty,
            **{f"{name}_busy": sequencer.busy[n] for n, name in enumerate(ENGINES)},
            **{f"{name}_waits_for_{other}": sequencer.waits[n][k]
               for n, name in enumerate(ENGINES) for k, other in enumerate(ENGINES)},
            **{f"{name}_beats_read": channel.beats.read[name] for name in ("instructions", "kv", "load", "weights")},
            **{f"{name}_beats_written": channel.beats.written[name] for name in ("kv", "store")},
        }
        for engine, unit in units.items():
            name = engine.name.lower()
            events[f"{name}_begins"], events[f"{name}_ends"] = unit.i.valid & unit.i.ready, unit.done.valid
        m.d.comb += [
            self.events.eq(Cat(events[name] for name in EVENTS)), counters.events.eq(self.events[:len(COUNTERS)]),
        ]
        return m
