# SPDX-License-Identifier: Apache-2.0
"""Wormhole router with virtual channels."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from golden.packet import Port
from hw.emit import Block
from hw.noc.lane import FAULTS, Lane, outputs
from hw.noc.link import HEADER, Link, channels, flit
from hw.noc.output import BUCKETS, Output, bucket

__all__ = ["ERROR", "PROBE", "Router", "state"]

ERROR = data.StructLayout({"code": 3, "port": 3, "vc": 2, "src_x": 4, "src_y": 4})
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

    Members
    -------
    x, y : In(4)
        Where it is.
    n_i, n_o, ..., l_i, l_o : In and Out(Link(bits, vcs))
        By port.
    error : Out(ERROR)
        The first packet that was dropped since `clear`.
    clear : In(1)
    probe : In(PROBE)
    state : Out(state(vcs, depth))
        Of the port and virtual channel that `probe` names.
    """

    def __init__(self, sides, bits, depth, traffic, registered=False):
        self.sides, self.bits, self.depth, self.traffic, self.registered = sides, bits, depth, traffic, registered
        self.ports = [port for port in Port if port.name in f"{sides}L"]
        self.channels = channels(traffic)
        self.vcs = len(self.channels)
        super().__init__({
            "x": In(4), "y": In(4),
            **{f"{port.name.lower()}_{way}": flow(Link(bits, self.vcs))
               for port in self.ports for way, flow in (("i", In), ("o", Out))},
            "error": Out(ERROR), "clear": In(1), "probe": In(PROBE), "state": Out(state(self.vcs, depth)),
        })

    def link(self, port, way):
        """The link at a port: `way` is "i" or "o"."""
        return getattr(self, f"{port.name.lower()}_{way}")

    def elaborate(self, platform):
        m = Module()
        self.lanes, self.given, self.chosen = {}, {}, {}
        for port in self.ports:
            for vc, (each, _) in enumerate(self.channels):
                link = self.link(port, "i")
                lane = Lane(self.bits, self.depth, each.order, outputs(each.order, port, self.sides))
                m.submodules[f"{port.name.lower()}{vc}"] = self.lanes[port, vc] = lane
                m.d.comb += [
                    lane.x.eq(self.x), lane.y.eq(self.y),
                    lane.flit.eq(link.flit), lane.flit.parity.eq(link.flit.parity ^ (vc.bit_count() & 1)),
                    lane.valid.eq(link.valid[vc]), link.credit[vc].eq(lane.credit),
                ]
        self.given = {}             # the virtual channel that its packet has been given
        for port, vc in self.lanes:
            numbers = self.channels[vc][1]
            name = f"{port.name.lower()}{vc}_given"
            self.given[port, vc] = Signal(range(len(numbers)), name=name) if len(numbers) > 1 else Const(0)

        self.outputs = {}
        taken = {where: [] for where in self.lanes}
        for out in self.ports:
            candidates = [[(port, vc) for vc in range(self.vcs) if out in self.lanes[port, vc].outputs]
                          for port in self.ports]
            candidates = [each for each in candidates if each]
            if candidates:
                self._output(m, out, candidates, taken)
        for where, lane in self.lanes.items():
            m.d.comb += lane.taken.eq(Cat(grant for grant, _ in taken[where]).any())
            given, numbers = self.given[where], self.channels[where[1]][1]
            with m.If(lane.taken & ~lane.inside):
                for bit in range(ceil_log2(len(numbers))):
                    m.d.sync += given[bit].eq(Cat(grant & choice[w] for grant, choice in taken[where]
                                                  for k, w in enumerate(numbers) if k >> bit & 1).any())

        self._report(m)
        return m

    def _output(self, m, out, candidates, taken):
        """One output and its column of the switch."""
        unit = Output(self.traffic, self.depth, tuple(tuple(vc for _, vc in each) for each in candidates),
                      out != Port.L)
        m.submodules[f"{out.name.lower()}_output"] = unit
        link, legs = self.link(out, "o"), []
        for n, where in enumerate(where for each in candidates for where in each):
            lane = self.lanes[where]
            header, (each, numbers) = data.View(HEADER, lane.o.data[:64]), self.channels[where[1]]
            number = bucket(each.order, out, header)
            m.d.comb += [
                unit.wants[n].eq(lane.wants[out]), unit.inside[n].eq(lane.inside),
                unit.tail[n].eq(lane.o.tail), unit.drop[n].eq(lane.drop),
                unit.bucket[n].eq(Cat((number == h) & ~lane.inside for h in range(BUCKETS))),
                unit.channel[n].eq(Cat((self.given[where] == numbers.index(w)) if w in numbers else 0
                                       for w in range(self.vcs))),
            ]
            taken[where].append((unit.grant[n], unit.choice[n]))
            leg = Signal(flit(self.bits), name=f"{out.name.lower()}_leg{n}")
            m.d.comb += [
                leg.data.eq(lane.o.data), leg.head.eq(lane.o.head), leg.tail.eq(lane.o.tail),
                leg.route.eq(getattr(lane, f"ahead_{out.name.lower()}")), leg.parity.eq(lane.parity[out]),
            ]
            legs.append(Mux(unit.grant[n], Value.cast(leg), 0))
        sent = Signal(flit(self.bits), name=f"{out.name.lower()}_sent")
        odd = Cat(unit.valid[w] for w in range(self.vcs) if w.bit_count() & 1).any()
        m.d.comb += Value.cast(sent).eq(reduce(or_, legs))
        domain = m.d.sync if self.registered else m.d.comb
        domain += link.flit.eq(sent), link.flit.parity.eq(sent.parity ^ odd), link.valid.eq(unit.valid)
        m.d.comb += unit.credit.eq(link.credit)
        self.outputs[out] = unit

    def _report(self, m):
        """The first error, and what the probe sees."""
        layout = data.StructLayout({"faults": len(FAULTS), "port": 3, "vc": 2, "src_x": 4, "src_y": 4})
        first, kept, faults = [], Signal(layout, reset_less=True), 0
        for (port, vc), lane in self.lanes.items():
            header, found, fault = data.View(HEADER, lane.o.data[:64]), Signal(layout), Signal()
            m.d.comb += [
                found.faults.eq(lane.faults), found.port.eq(port), found.vc.eq(vc),
                found.src_x.eq(header.src_x), found.src_y.eq(header.src_y),
                fault.eq(lane.faults.any()),
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
