# SPDX-License-Identifier: Apache-2.0
"""The data side of the KV cache: transfers of the controller, carried out over AXI4."""

from amaranth.hdl import Module
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.axi import PAGE, Axi4, Port
from hw.emit import Block
from hw.kvcache.copier import AHEAD, Copier
from hw.kvcache.dispatcher import Dispatcher
from hw.kvcache.ports import beat, fault, move, range_
from hw.kvcache.reader import Reader
from hw.kvcache.writer import Writer

__all__ = ["Store"]


class Store(Block):
    """Reads streams, writes new tokens and copies blocks. Streams come first: see `hw.axi.Port`.

    Parameters
    ----------
    config : golden.config.KvCache

    Members
    -------
    ranges, moves : In(stream.Signature)
        Of the controller.
    retire : Out(stream.Signature)
        To the controller.
    rows : In(stream.Signature(32 * config.lanes))
        What the slots of a `WRITE` are to hold, see `Writer`.
    beats : Out(stream.Signature(beat(config)))
        What a `STREAM` reads.
    axi : Out(Axi4)
    base, host_base : In(config.address_bits - 12)
        Where the pool and host memory begin, in pages of 4 KiB. Steady.
    busy : Out(1)
        Something is under way.
    fault : Out(fault())
        The first transfer that failed since `clear`.
    dead : Out(1)
        The memory did not answer and was given up. Until reset.
    nans : Out(32)
        Elements that became NaN.
    clear : In(1)
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "ranges": In(stream.Signature(range_(config))),
            "moves": In(stream.Signature(move(config))),
            "retire": Out(stream.Signature(range(max(config.sequences, 2)))),
            "rows": In(stream.Signature(32 * config.lanes)),
            "beats": Out(stream.Signature(beat(config))),
            "axi": Out(Axi4(address_bits=config.address_bits, beat=config.beat, id_bits=1)),
            "base": In(config.address_bits - 12),
            "host_base": In(config.address_bits - 12),
            "busy": Out(1),
            "fault": Out(fault()),
            "dead": Out(1),
            "nans": Out(32),
            "clear": In(1),
        })

    def elaborate(self, platform):
        m, config = Module(), self.config
        m.submodules.dispatcher = dispatcher = Dispatcher(config)
        m.submodules.reader = reader = Reader(config)
        m.submodules.writer = writer = Writer(config)
        m.submodules.copier = copier = Copier(config)
        m.submodules.port = port = Port(
            config.address_bits, config.beat, max(config.buffer, AHEAD), config.patience)
        for own, part in ((self.ranges, dispatcher.ranges), (self.moves, dispatcher.moves), (self.rows, writer.rows)):
            connect(m, flipped(own), part)
        for part, own in ((reader.o, self.beats), (reader.retire, self.retire), (port.axi, self.axi)):
            connect(m, part, flipped(own))
        for source, target in (
                (dispatcher.reads, reader.i), (dispatcher.writes, writer.i), (dispatcher.copies, copier.i),
                (reader.memory, port.read0), (copier.from_memory, port.read1),
                (writer.memory, port.write0), (copier.to_memory, port.write1)):
            connect(m, source, target)

        pages = PAGE // config.beat
        for part in reader, writer, copier:
            m.d.comb += part.base.eq(self.base * pages)
        m.d.comb += [
            copier.host_base.eq(self.host_base * pages),
            dispatcher.read_done.eq(reader.done), dispatcher.write_done.eq(writer.done),
            dispatcher.source_done.eq(copier.source_done), dispatcher.target_done.eq(copier.target_done),
            dispatcher.clear.eq(self.clear), self.fault.eq(dispatcher.error),
            self.busy.eq(dispatcher.busy), self.dead.eq(port.dead),
        ]
        m.d.sync += self.nans.eq(self.nans + writer.nans)
        return m
