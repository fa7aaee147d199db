# SPDX-License-Identifier: Apache-2.0
"""Streams: slots out of memory, to attention."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.paging import Status
from hw.axi import Reads, reading
from hw.emit import Block
from hw.kvcache.checksum import Checker
from hw.kvcache.ports import beat, done, read
from hw.kvcache.runs import Runs, Tags, address, most
from hw.stream import DeepQueue, Queue

__all__ = ["Reader", "tag"]

TAG = ("sid", "head", "opens", "closes", "end", "entry")


def tag(config):
    """What goes along with each beat of some slots."""
    return data.StructLayout({name: read(config).members[name] for name in TAG})


class Reader(Block):
    """Reads slots in the order in which they are asked for, a beat a cycle across segments, heads and streams.

    A burst is asked for two cycles after its slots. A beat with which a row ends that does not fit its checksum is
    an error, as is one that the memory says is. Scales of slots that are not read come out as zeros, so
    that a stream's beats do not depend on what is being written beside it.

    Parameters
    ----------
    config : golden.config.KvCache

    Members
    -------
    i : In(stream.Signature(read(config)))
    o : Out(stream.Signature(beat(config)))
    retire : Out(stream.Signature)
        A sequence of which a stream's last beat has left.
    done : Out(done(config))
    memory : Out(reading(address, beat))
    base : In(address)
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(read(config))),
            "o": Out(stream.Signature(beat(config))),
            "retire": Out(stream.Signature(range(max(config.sequences, 2)))),
            "done": Out(done(config)),
            "memory": Out(reading(address(config), config.beat)),
            "base": In(address(config)),
        })

    def elaborate(self, platform):
        m, config, o = Module(), self.config, self.o.payload
        m.submodules.runs = runs = Runs(config)
        m.submodules.reads = reads = Reads(address(config), config.beat, most(config), config.burst,
                                           config.buffer)
        m.submodules.tags = tags = Tags(config, tag(config))
        m.submodules.asked = asked = DeepQueue(tags.i.payload.shape(), config.transfers)
        # Streams that end while the controller is busy: no more than there are transfers, and one in hand.
        m.submodules.ended = ended = Queue(range(max(config.sequences, 2)), config.transfers + 2)
        connect(m, runs.o, reads.i)
        connect(m, asked.o, tags.i)
        connect(m, reads.memory, flipped(self.memory))
        connect(m, ended.o, flipped(self.retire))

        m.d.comb += [
            self.i.ready.eq(runs.i.ready & asked.i.ready),
            runs.i.valid.eq(self.i.valid & asked.i.ready), asked.i.valid.eq(self.i.valid & runs.i.ready),
            runs.i.payload.segment.eq(self.i.payload.segment), runs.base.eq(self.base),
        ]
        for port in runs.i.payload, asked.i.payload:
            m.d.comb += port.first.eq(self.i.payload.first), port.slots.eq(self.i.payload.slots)
        m.d.comb += [asked.i.payload.tag[name].eq(self.i.payload[name]) for name in TAG]

        # A register behind the memory, in which a beat waits for its row's checksum.
        what, full, free, comes = tags.o.payload, Signal(), Signal(), Signal()
        held = Signal(data.StructLayout({"data": 8 * config.beat, "error": 1, "what": tags.o.payload.shape()}),
                      reset_less=True)
        kept, corrupt = Signal(8 * config.beat), Signal()
        m.d.comb += [
            free.eq(~full | self.o.ready), comes.eq(reads.o.valid & tags.o.valid),
            reads.o.ready.eq(comes & free), tags.o.ready.eq(comes & free),
            kept.eq(reads.o.payload.data & Cat(bit.replicate(8) for bit in what.strobe)),
        ]
        with m.If(free):
            m.d.sync += full.eq(comes), held.data.eq(kept), held.error.eq(reads.o.payload.error), held.what.eq(what)
        if config.scale_beats:
            m.submodules.checker = checker = Checker(config)
            m.d.comb += [
                checker.take.eq(comes & free), checker.data.eq(kept), corrupt.eq(checker.corrupt),
                checker.part.eq(what.part), checker.slot.eq(what.slot), checker.beat.eq(what.beat)]

        what, passes, status, worst = held.what, Signal(), Signal(Status), Signal(Status)
        m.d.comb += [
            self.o.valid.eq(full), passes.eq(self.o.valid & self.o.ready),
            o.data.eq(held.data), o.error.eq(held.error | corrupt),
            o.part.eq(what.part), o.slot.eq(what.slot), o.head.eq(what.tag.head), o.sid.eq(what.tag.sid),
            o.first.eq(what.first & what.tag.opens), o.last.eq(what.last & what.tag.closes),
            o.end.eq(what.last & what.tag.end),
            ended.i.valid.eq(passes & o.end), ended.i.payload.eq(o.sid),
            status.eq(Mux(worst != Status.OK, worst, Mux(held.error, Status.BUS_ERR, Mux(
                corrupt, Status.ECC_UE, Status.OK)))),
            self.done.valid.eq(passes & what.last), self.done.tag.eq(what.tag.entry), self.done.status.eq(status),
        ]
        with m.If(passes):
            m.d.sync += worst.eq(Mux(what.last, Status.OK, status))
        return m
