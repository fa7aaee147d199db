# SPDX-License-Identifier: Apache-2.0
"""Wormhole router with virtual channels."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.packet import Error, Port
from hw.emit import Block
from hw.noc.lane import FAULTS, Lane, outputs
from hw.noc.link import HEADER, Link, channels, flit
from hw.noc.output import BUCKETS, Output, bucket
from hw.noc.reduce import Reduce, order

__all__ = ["ERROR", "PROBE", "Router", "state"]

ERROR = data.StructLayout({"code": 3, "port": 3, "vc": 2, "source": 8})
"""An `Error`, and where it was found. `source`: of a packet, x and then y; of a reduction its group."""
PROBE = data.StructLayout({"port": 3, "vc": 2})


def state(vcs, depth):
    """What there is to see of a port and virtual channel.

    Of the input: a bit for each flit in the buffer, `inside` a packet, the outputs that the flit in front `wants`,
    the virtual channel there that its packet has been `given`. Of the output: a bit for each flit that may be in
    the buffer behind it, the others being credits, and whether a packet is on it: that of the input which is
    inside, wants this output, and has been given this channel.
    """
    return data.StructLayout({"buffered": depth, "inside": 1, "wants": 5, "given": vcs, "used": depth, "busy": 1})


class Router(Block):
    """A router of a mesh: one cycle from a buffer through the switch and over the link into the next buffer.

    Each virtual channel of each input has an input of the switch of its own. Flits carry the outputs that they
    take of the router they come to, so nothing has to be decoded before they ask for them. What is damaged is
    dropped, and reported in `error`.

    Parameters
    ----------
    sides : str
        Where it has neighbours: some of "NESW".
    bits : int
        Data of a flit.
    depth : int
        Flits that a virtual channel of an input buffers.
    traffic : tuple of Traffic
        Classes, in the order of their virtual channels.
    registered : bool
        A register behind each output: two cycles a hop.
    groups, patience : int
        As of `Reduce`.

    Members
    -------
    x, y : In(4)
        Where it is.
    n_i, n_o, ..., l_i, l_o : In and Out(Link(bits, vcs))
        By port.
    write : In(order(groups)), if there is a class of reductions
        As of `Reduce`.
    error : Out(ERROR)
        The first packet that was dropped since `clear`.
    clear : In(1)
    probe : In(PROBE)
    state : Out(state(vcs, depth))
        Of the port and virtual channel that `probe` names.
    """

    def __init__(self, sides, bits, depth, traffic, registered=False, groups=4, patience=10000):
        self.sides, self.bits, self.depth, self.traffic, self.registered = sides, bits, depth, traffic, registered
        self.groups, self.patience = groups, patience
        self.ports = [port for port in Port if port.name in f"{sides}L"]
        self.channels = channels(traffic)
        self.vcs = len(self.channels)
        self.sums = next((vc for vc, (each, _) in enumerate(self.channels) if each.reduce), None)
        super().__init__({
            "x": In(4), "y": In(4),
            **{f"{port.name.lower()}_{way}": flow(Link(bits, self.vcs))
               for port in self.ports for way, flow in (("i", In), ("o", Out))},
            **({} if self.sums is None else {"write": In(order(groups))}),
            "error": Out(ERROR), "clear": In(1), "probe": In(PROBE), "state": Out(state(self.vcs, depth)),
        })

    def link(self, port, way):
        """The link at a port: `way` is "i" or "o"."""
        return getattr(self, f"{port.name.lower()}_{way}")

    def elaborate(self, platform):
        m = Module()
        self.lanes, self.given = {}, {}
        for port in self.ports:
            for vc, (each, numbers) in enumerate(self.channels):
                link, name = self.link(port, "i"), f"{port.name.lower()}{vc}"
                ways = "" if each.reduce else outputs(each.order, port, self.sides)
                lane = Lane(self.bits, self.depth, each.order, ways, each.multicast)
                m.submodules[name] = self.lanes[port, vc] = lane
                m.d.comb += [
                    lane.x.eq(self.x), lane.y.eq(self.y),
                    lane.flit.eq(link.flit), lane.flit.parity.eq(link.flit.parity ^ (vc.bit_count() & 1)),
                    lane.valid.eq(link.valid[vc]), link.credit[vc].eq(lane.credit),
                ]
                # The virtual channel that its packet has been given.
                several = len(numbers) > 1
                self.given[port, vc] = Signal(range(len(numbers)), name=f"{name}_given") if several else Const(0)
        if self.sums is not None:
            self._reduce(m)

        self.outputs = {}
        taken = {where: [] for where in self.lanes}
        for out in self.ports:
            self._output(m, out, taken)
        for where, lane in self.lanes.items():
            given, numbers = self.given[where], self.channels[where[1]][1]
            with m.If(lane.taken & ~lane.inside):
                for bit in range(ceil_log2(len(numbers))):
                    m.d.sync += given[bit].eq(Cat(grant & choice[w] for grant, choice in taken[where]
                                                  for k, w in enumerate(numbers) if k >> bit & 1).any())

        self._report(m)
        return m

    def _reduce(self, m):
        """Reductions: what comes of them is one more input of the switch."""
        m.submodules.reduce = self.reduce = sums = Reduce(self.sides, self.bits, self.groups, self.patience)
        self.leaves = Signal(len(Port))
        m.d.comb += sums.write.eq(self.write), sums.clear.eq(self.clear), sums.o.ready.eq(self.leaves.any())
        for port in self.ports:
            lane, to = self.lanes[port, self.sums], sums.input(port)
            m.d.comb += [
                to.valid.eq(lane.there), lane.ready.eq(to.valid & to.ready),
                to.payload.data.eq(lane.o.data), to.payload.head.eq(lane.o.head), to.payload.tail.eq(lane.o.tail),
                to.payload.odd.eq(lane.odd),
            ]

    def _output(self, m, out, taken):
        """One output and its column of the switch."""
        candidates = [[(port, vc) for vc in range(self.vcs) if out in self.lanes[port, vc].outputs]
                      for port in self.ports]
        candidates = [each for each in candidates if each]
        inputs = [tuple(vc for _, vc in each) for each in candidates] + [(self.sums,)] * (self.sums is not None)
        if not inputs:
            return
        unit = Output(self.traffic, self.depth, tuple(inputs), out != Port.L)
        m.submodules[f"{out.name.lower()}_output"] = unit
        legs = []
        for n, where in enumerate(where for each in candidates for where in each):
            legs.append(self._lane(m, unit, n, out, where))
            taken[where].append((unit.grant[n], unit.choice[n]))
        if self.sums is not None:
            legs.append(self._sum(m, unit, len(legs), out))
        legs = [Mux(unit.grant[n], Value.cast(leg), 0) for n, leg in enumerate(legs)]

        link, sent = self.link(out, "o"), Signal(flit(self.bits), name=f"{out.name.lower()}_sent")
        odd = Cat(unit.valid[w] for w in range(self.vcs) if w.bit_count() & 1).any()
        m.d.comb += Value.cast(sent).eq(reduce(or_, legs)), unit.credit.eq(link.credit)
        domain = m.d.sync if self.registered else m.d.comb
        domain += link.flit.eq(sent), link.flit.parity.eq(sent.parity ^ odd), link.valid.eq(unit.valid)
        self.outputs[out] = unit

    def _lane(self, m, unit, n, out, where):
        """Candidate `n` of an output is a lane; what it sends."""
        lane, (each, numbers) = self.lanes[where], self.channels[where[1]]
        number = bucket(each.order, out, data.View(HEADER, lane.o.data[:64]))
        leg = Signal(flit(self.bits), name=f"{out.name.lower()}_leg{n}")
        m.d.comb += [
            unit.wants[n].eq(lane.wants[out]), unit.owns[n].eq(lane.owns[out]), unit.hold[n].eq(lane.hold[out]),
            unit.claim[n].eq(lane.claim[out]), unit.need[n].eq(lane.need), unit.tail[n].eq(lane.o.tail),
            lane.grant[out].eq(unit.grant[n]),
            unit.bucket[n].eq(Cat((number == h) & ~lane.inside for h in range(BUCKETS))),
            unit.channel[n].eq(Cat((self.given[where] == numbers.index(w)) if w in numbers else 0
                                   for w in range(self.vcs))),
            leg.data.eq(lane.o.data), leg.head.eq(lane.o.head), leg.tail.eq(lane.o.tail),
            leg.route.eq(getattr(lane, f"ahead_{out.name.lower()}")), leg.parity.eq(lane.parity[out]),
        ]
        return leg

    def _sum(self, m, unit, n, out):
        """Candidate `n` of an output is what comes of reductions; what it sends."""
        o, leg = self.reduce.o, Signal(flit(self.bits), name=f"{out.name.lower()}_leg{n}")
        m.d.comb += [
            unit.wants[n].eq(o.valid & o.payload.outputs[out]), unit.owns[n].eq(~o.payload.head),
            unit.need[n].eq(1 << self.depth - 1), unit.tail[n].eq(o.payload.tail),
            unit.channel[n].eq(1 << self.sums), self.leaves[out].eq(unit.grant[n]),
            *(getattr(leg, name).eq(getattr(o.payload, name)) for name in ("data", "head", "tail", "parity")),
        ]
        return leg

    def _report(self, m):
        """The first error, and what the probe sees."""
        layout = data.StructLayout({"faults": len(FAULTS), "port": 3, "vc": 2, "source": 8})
        first, kept, faults = [], Signal(layout, reset_less=True), 0
        for (port, vc), lane in self.lanes.items():
            header, found, fault = data.View(HEADER, lane.o.data[:64]), Signal(layout), Signal()
            m.d.comb += [
                found.faults.eq(lane.faults), found.port.eq(port), found.vc.eq(vc),
                found.source.eq(Cat(header.src_x, header.src_y)), fault.eq(lane.faults.any()),
            ]
            first.append(Mux(fault & ~faults, Value.cast(found), 0))
            faults |= fault
        failed = Signal()
        with m.If(~failed):
            m.d.sync += Value.cast(kept).eq(reduce(or_, first)), failed.eq(faults)
        with m.If(self.clear):
            m.d.sync += failed.eq(0)
        with m.If(failed):
            m.d.comb += [getattr(self.error, name).eq(getattr(kept, name)) for name in ERROR.members if name != "code"]
            for n, code in reversed(list(enumerate(FAULTS))):
                with m.If(kept.faults[n]):
                    m.d.comb += self.error.code.eq(code)
        if self.sums is not None:
            error = self.reduce.error
            with m.Elif(error.code != Error.NONE):
                m.d.comb += [
                    self.error.code.eq(error.code), self.error.port.eq(error.port), self.error.vc.eq(self.sums),
                    self.error.source.eq(error.tag),
                ]

        seen = []
        for (port, vc), lane in self.lanes.items():
            here = Signal(self.state.shape(), name=f"{port.name.lower()}{vc}_state")
            given, numbers = self.given[port, vc], self.channels[vc][1]
            m.d.comb += [
                here.buffered.eq(lane.used), here.inside.eq(lane.inside), here.wants.eq(lane.wants),
                *(here.given[w].eq(lane.inside & (given == k)) for k, w in enumerate(numbers)),
            ]
            if unit := self.outputs.get(port):
                m.d.comb += here.used.eq(unit.used[vc]), here.busy.eq(unit.busy[vc])
            asked = (self.probe.port == port) & (self.probe.vc == vc)
            seen.append(Mux(asked, Value.cast(here), 0))
        m.d.comb += Value.cast(self.state).eq(reduce(or_, seen))
