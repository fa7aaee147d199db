# SPDX-License-Identifier: Apache-2.0
"""A tile: all engines of a chip, the scratchpad between them, the channel to memory, and the host's port."""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal, Signal
from amaranth.lib.wiring import Out, connect, flipped

from golden.isa import Engine
from golden.registers import COUNTERS, ENGINES, IDENTITY
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
from hw.tile.heads import Heads
from hw.tile.host import AxiLite, Host
from hw.vector import walker as vector

__all__ = ["Tile"]

PAGE_BITS = 12
AHEAD = 64          # beats of `LOAD` that are under way


class Tile(Block):
    """Runs programs of `golden.isa`; `golden.tile` is its specification.

    Engines are in a clock domain of their own, which is reset when one of them is given up: the KV cache forgets its
    sequences then.

    Parameters
    ----------
    chip : golden.config.Chip

    Members
    -------
    axi : Out(Axi4(...))
        To memory.
    host : In(AxiLite())
        Registers, as `golden.registers` has them.
    interrupt : Out(1)
    events : Out(len(COUNTERS))
        What is counted in this cycle.
    """

    def __init__(self, chip):
        self.chip = chip
        super().__init__({
            "axi": Out(Axi4(address_bits=chip.kvcache.address_bits, beat=chip.memory.channel, id_bits=3)),
            "host": Out(AxiLite()), "interrupt": Out(1), "events": Out(len(COUNTERS)),
        })

    @property
    def name(self):
        return f"tile_{self.chip.name}"

    def elaborate(self, platform):
        m, chip = Module(), self.chip
        beat, size, patience = chip.memory.channel, chip.memory.scratchpad, chip.sequencer.patience
        m.domains.engines = engines = ClockDomain("engines")
        resets = Signal()
        m.d.comb += engines.clk.eq(ClockSignal()), engines.rst.eq(ResetSignal() | resets)

        def add(name, block, domain="engines"):
            m.submodules[name] = DomainRenamer(domain)(block) if domain != "sync" else block
            return block

        host = add("host_port", Host(), "sync")
        counters = add("counters", Counters(len(COUNTERS)), "sync")
        sequencer = add("sequencer", Sequencer(chip.sequencer, beat), "sync")
        channel = add("channel", Channel(chip.kvcache.address_bits, beat, chip.memory.burst, patience), "sync")
        connect(m, host.port, flipped(self.host))
        connect(m, channel.axi, flipped(self.axi))

        # Engines
        (port, requests, _), burst = matmul.reads(chip.matmul)["weights"], min(256, 4096 // beat)
        units = {
            Engine.LOAD: add("load", Load(beat, size, min(burst, AHEAD), AHEAD)),
            Engine.WEIGHTS: add("weights", Weights(beat, port // 8, chip.memory.prefetch, chip.memory.burst, requests)),
            Engine.MATMUL: add("gemm", GemmUnit(chip.matmul)),
            Engine.VECTOR: add("vector", VectorUnit(chip.vector)),
            Engine.HEADS: add("heads", Heads(chip.kvcache, chip.attention.group)),
            Engine.STORE: add("store", Store(beat, size, burst)),
        }
        load, weights, gemm, vectors, heads, store = units.values()
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
        reads = matmul.reads(chip.matmul)
        readers = [
            *((getattr(gemm, f"{name}_request"), getattr(gemm, name), (reads[name][0] // 8, *reads[name][1:]))
              for name in ("activations", "parameters")),
            *((getattr(vectors, f"{name}_request"), getattr(vectors, name),
               (4 * chip.vector.lanes, *vector.reads(chip.vector))) for name in "xy"),
            *((getattr(heads, f"{name}_request"), getattr(heads, name), (4 * chip.kvcache.lanes, *heads.reads))
              for name in ("queries", "rows")),
            (store.request, store.response, (beat, size // beat, 1)),
            (load.index_request, load.index, (4, 1, 1)),
        ]
        writers = [(gemm.write, (4 * chip.matmul.drain, chip.matmul.drain)),
                   (vectors.write, (4 * chip.vector.lanes, 1)), (heads.write, (8, 4)), (load.write, (beat, beat))]
        scratchpad = add("scratchpad", Scratchpad(
            size, chip.memory.banks, chip.word, tuple(shape for *_, shape in readers),
            tuple(shape for _, shape in writers)))
        for n, (request, response, _) in enumerate(readers):
            connect(m, request, getattr(scratchpad, f"request{n}"))
            connect(m, getattr(scratchpad, f"response{n}"), response)
        for n, (write, _) in enumerate(writers):
            connect(m, write, getattr(scratchpad, f"write{n}"))

        # The host
        given, told = host.o, host.i
        stands, done = Signal(), Signal()
        m.d.comb += [
            sequencer.start.valid.eq(given.control.start & ~stands),
            sequencer.start.payload.address.eq(given.address.value),
            sequencer.start.payload.count.eq(given.count.value),
            *(sequencer.registers[n].eq(given[f"register{n}"].value) for n in range(1, len(sequencer.registers))),
            sequencer.stop.eq(given.control.stop), sequencer.clear.eq(given.control.clear),
            stands.eq(sequencer.error.code != 0),
            told.identity.value.eq(IDENTITY),
            told.status.state.eq(sequencer.status.state), told.status.done.eq(done), told.status.error.eq(stands),
            told.status.dead.eq(channel.dead), told.status.pc.eq(sequencer.status.pc),
            told.error.code.eq(sequencer.error.code), told.error.engine.eq(sequencer.error.engine),
            told.error.pc.eq(sequencer.error.pc), told.detail.value.eq(sequencer.error.detail),
            counters.freeze.eq(given.control.freeze), counters.zero.eq(given.control.zero),
            counters.index.eq(given.counter.index),
            told.counter_low.value.eq(counters.value[:32]), told.counter_high.value.eq(counters.value[32:]),
            self.interrupt.eq(given.control.interrupt & (done | stands)),
            heads.base.eq(given.kv_base.value), heads.pool.eq(chip.kvcache.blocks),
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
                write.valid & write.ready for write, _ in writers).any() | Cat(
                request.valid & request.ready for request, _, _ in readers).any()),
        ]

        # What is counted
        running = Signal()
        m.d.comb += running.eq(sequencer.busy.any() | (sequencer.status.state != 0) & (sequencer.status.state != 4))
        events = {
            "cycles": running, "weights_full": weights.full, "weights_empty": weights.empty,
            **{f"{name}_busy": sequencer.busy[n] for n, name in enumerate(ENGINES)},
            **{f"{name}_waits_for_{other}": sequencer.waits[n][k]
               for n, name in enumerate(ENGINES) for k, other in enumerate(ENGINES)},
            **{f"{name}_beats_read": channel.beats.read[name] for name in ("instructions", "kv", "load", "weights")},
            **{f"{name}_beats_written": channel.beats.written[name] for name in ("kv", "store")},
        }
        m.d.comb += self.events.eq(Cat(events[name] for name in COUNTERS)), counters.events.eq(self.events)
        return m
