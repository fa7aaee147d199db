# SPDX-License-Identifier: Apache-2.0
"""The order of transfers: each begins when no earlier one is under way that touches the same slots."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.paging import Move, Status
from hw.emit import Block
from hw.kvcache.ports import copy, done, fault, move, range_, read, write

__all__ = ["Dispatcher"]

DONE = ("read", "write", "source", "target")


class Dispatcher(Block):
    """Hands the controller's transfers, in its order, to reader, writer and copier. A range a cycle, latency 1.

    An entry stands for some slots of a block until all of its transfer is done: read, or in memory. A
    transfer waits while one of its slots has an entry that writes, or that reads what it is to write. As
    the first that waits holds up all that follow, what follows a copy or a write sees what that did.

    Parameters
    ----------
    config : golden.config.KvCache

    Members
    -------
    ranges, moves : In(stream.Signature)
        Of the controller, which never offers both.
    reads, writes, copies : Out(stream.Signature)
    read_done, write_done, source_done, target_done : In(done(config))
        An entry that is done.
    busy : Out(1)
        Something is under way.
    error : Out(fault(config))
        The first transfer that failed since `clear`.
    clear : In(1)
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "ranges": In(stream.Signature(range_(config))),
            "moves": In(stream.Signature(move(config))),
            "reads": Out(stream.Signature(read(config))),
            "writes": Out(stream.Signature(write(config))),
            "copies": Out(stream.Signature(copy(config))),
            **{f"{name}_done": In(done(config)) for name in DONE},
            "busy": Out(1),
            "error": Out(fault()),
            "clear": In(1),
        })

    def elaborate(self, platform):
        m, config = Module(), self.config
        place = max(ceil_log2(config.blocks), ceil_log2(config.host_blocks))
        claim = data.StructLayout({
            "host": 1, "place": place, "first": config.slots, "end": range(config.block_tokens + 1),
            "write": 1, "sid": range(max(config.sequences, 2))})
        entries = Array(Signal(claim, name=f"entry{n}", reset_less=True) for n in range(config.transfers))
        taken = Signal(config.transfers)

        # The transfer in hand
        valid, moves, second = Signal(), Signal(), Signal()     # second: the target of a move
        slots, order = Signal(range_(config), reset_less=True), Signal(move(config), reset_less=True)
        number = Signal(self.reads.payload.segment.shape(), reset_less=True)
        source = Signal(range(config.transfers), reset_less=True)
        goes, ends, beyond = Signal(), Signal(), Signal()
        free = ~valid | ends | beyond
        m.d.comb += self.ranges.ready.eq(free), self.moves.ready.eq(free)
        with m.If(free):
            given = self.ranges.payload
            m.d.sync += [
                valid.eq(self.ranges.valid | self.moves.valid), moves.eq(self.moves.valid), second.eq(0),
                slots.eq(given), order.eq(self.moves.payload),
                number.eq(given.block * config.segments + given.layer * config.kv_heads
                          + Mux(given.write, 0, given.head)),
            ]

        # What it touches, and whether it may
        wanted = Signal(claim)
        end = Signal(range(config.block_tokens + 1))
        m.d.comb += [
            end.eq(slots.first + slots.slots),
            wanted.host.eq(moves & (order.kind == Mux(second, Move.OUT, Move.IN))),
            wanted.place.eq(Mux(moves, Mux(second, order.target, order.source), slots.block)),
            wanted.first.eq(Mux(moves, 0, slots.first)), wanted.end.eq(Mux(moves, order.slots, end)),
            wanted.write.eq(Mux(moves, second, slots.write)), wanted.sid.eq(Mux(moves, 0, slots.sid)),
        ]
        met = Cat((each.host == wanted.host) & (each.place == wanted.place) & (each.write | wanted.write)
                  & (each.first < wanted.end) & (wanted.first < each.end) for each in entries)
        may, entry, chosen = Signal(), Signal(range(config.transfers)), Signal()     # the entry that comes next
        m.d.comb += [
            beyond.eq(valid & moves & ((order.kind == Move.OUT) & (order.target >= config.host_blocks)
                                       | (order.kind == Move.IN) & (order.source >= config.host_blocks))),
            may.eq(valid & ~beyond & ~(met & taken).any() & chosen),
        ]
        others = Signal(config.transfers)
        m.d.comb += others.eq(~(taken | Mux(chosen, 1 << entry, 0)))
        with m.If(goes | ~chosen):
            m.d.sync += chosen.eq(others.any())
            for n in reversed(range(config.transfers)):
                with m.If(others[n]):
                    m.d.sync += entry.eq(n)

        # To whom it goes
        reads, writes, copies = self.reads, self.writes, self.copies
        m.d.comb += [
            reads.valid.eq(may & ~moves & ~slots.write), writes.valid.eq(may & ~moves & slots.write),
            copies.valid.eq(may & moves & second),
            ends.eq(Mux(moves, copies.valid & copies.ready, goes)),
            goes.eq(may & Mux(moves, ~second | copies.ready, Mux(slots.write, writes.ready, reads.ready))),
            copies.payload.source.eq(order.source * config.segments),
            copies.payload.target.eq(order.target * config.segments),
            copies.payload.kind.eq(order.kind), copies.payload.slots.eq(order.slots),
            copies.payload.source_entry.eq(source), copies.payload.target_entry.eq(entry),
        ]
        for port in reads, writes:
            m.d.comb += [port.payload.segment.eq(number), port.payload.entry.eq(entry),
                         port.payload.first.eq(slots.first), port.payload.slots.eq(slots.slots)]
        m.d.comb += [getattr(reads.payload, name).eq(getattr(slots, name))
                     for name in ("sid", "head", "opens", "closes", "end")]

        # Entries come and go
        gone = Signal(config.transfers)
        for name in DONE:
            port = getattr(self, f"{name}_done")
            with m.If(port.valid):
                m.d.comb += gone.bit_select(port.tag, 1).eq(1)
            with m.If(port.valid & (port.status != Status.OK) & (self.error.status == Status.OK)):
                failed = entries[port.tag]
                m.d.sync += [
                    self.error.status.eq(port.status), self.error.sid.eq(failed.sid),
                    self.error.place.eq(failed.place), self.error.host.eq(failed.host),
                    self.error.write.eq(failed.write)]
        with m.If(beyond & (self.error.status == Status.OK)):
            m.d.sync += [
                self.error.status.eq(Status.OUT_OF_RANGE), self.error.host.eq(1),
                self.error.write.eq(order.kind == Move.OUT),
                self.error.place.eq(Mux(order.kind == Move.OUT, order.target, order.source))]
        with m.If(self.clear):
            m.d.sync += self.error.eq(0)
        m.d.sync += taken.eq(taken & ~gone | Mux(goes, 1 << entry, 0))
        with m.If(goes):
            m.d.sync += entries[entry].eq(wanted), source.eq(entry), second.eq(moves & ~second)
        m.d.comb += self.busy.eq(valid | taken.any())
        return m
