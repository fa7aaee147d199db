# SPDX-License-Identifier: Apache-2.0
"""Copies of blocks, within the pool and to and from host memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.paging import Move, Status
from hw.axi import Reads, Writes, reading, writing
from hw.emit import Block
from hw.kvcache.ports import copy, done
from hw.kvcache.runs import Runs, Tags, address, most
from hw.stream import Queue

__all__ = ["AHEAD", "Copier"]

BURST = 16          # beats; short, so that the foreground is not held up for long
AHEAD = 2 * BURST   # beats that are asked for before they can be written


class Copier(Block):
    """Copies the first slots of a block, of all of its segments. No other byte of the target changes.

    Parameters
    ----------
    config : golden.config.KvCache

    Members
    -------
    i : In(stream.Signature(copy(config)))
    source_done, target_done : Out(done(config))
    from_memory : Out(reading(address, beat))
    to_memory : Out(writing(address, beat))
    base, host_base : In(address)
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(copy(config))),
            "source_done": Out(done(config)),
            "target_done": Out(done(config)),
            "from_memory": Out(reading(address(config), config.beat)),
            "to_memory": Out(writing(address(config), config.beat)),
            "base": In(address(config)),
            "host_base": In(address(config)),
        })

    def elaborate(self, platform):
        m, config = Module(), self.config
        where, entry = (address(config), config.beat, most(config), BURST), len(self.i.payload.source_entry)
        m.submodules.sources = sources = Runs(config)
        m.submodules.targets = targets = Runs(config, entry)
        m.submodules.tags = tags = Tags(config, entry)
        m.submodules.reads = reads = Reads(*where, AHEAD)
        m.submodules.writes = writes = Writes(*where, entry)
        connect(m, sources.o, reads.i)
        connect(m, targets.o, writes.i)
        connect(m, reads.memory, flipped(self.from_memory))
        connect(m, writes.memory, flipped(self.to_memory))
        for runs in sources, targets:
            m.d.comb += runs.base.eq(self.base), runs.host_base.eq(self.host_base)

        # A copy goes to all three once none has an earlier one waiting.
        given, queues = self.i.payload, []
        for name, port in ("source", sources.i), ("tag", tags.i), ("target", targets.i):
            m.submodules[f"{name}_queue"] = queue = Queue(port.payload.shape(), 2)
            connect(m, queue.o, port)
            m.d.comb += [queue.i.valid.eq(self.i.valid & self.i.ready), queue.i.payload.slots.eq(given.slots),
                         queue.i.payload.more.eq(config.segments - 1)]
            queues.append(queue.i)
        source, tag, target = (queue.payload for queue in queues)
        m.d.comb += [
            self.i.ready.eq(queues[0].ready & queues[1].ready & queues[2].ready),
            source.segment.eq(given.source), source.host.eq(given.kind == Move.IN),
            target.segment.eq(given.target), target.host.eq(given.kind == Move.OUT),
            tag.tag.eq(given.source_entry), target.tag.eq(given.target_entry),
        ]

        what, passes, failed, errs = tags.o.payload, Signal(), Signal(), Signal()
        m.d.comb += [
            passes.eq(reads.o.valid & tags.o.valid & writes.data.ready),
            reads.o.ready.eq(passes), tags.o.ready.eq(passes),
            writes.data.valid.eq(reads.o.valid & tags.o.valid),
            writes.data.payload.data.eq(reads.o.payload.data), writes.data.payload.strobe.eq(what.strobe),
            self.source_done.valid.eq(passes & what.last), self.source_done.tag.eq(what.tag),
            errs.eq(failed | reads.o.payload.error),
            self.source_done.status.eq(Mux(errs, Status.BUS_ERR, Status.OK)),
            self.target_done.valid.eq(writes.done.valid), self.target_done.tag.eq(writes.done.tag),
            self.target_done.status.eq(Mux(writes.done.error, Status.BUS_ERR, Status.OK)),
        ]
        with m.If(passes):
            m.d.sync += failed.eq(~what.last & errs)
        return m
