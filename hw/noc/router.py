# SPDX-License-Identifier: Apache-2.0
"""Wormhole router with virtual channels."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.packet import Error, Port, bucket
from hw.emit import Block
from hw.noc.lane import Lane, outputs
from hw.noc.link import HEADER, Link, channels, flit
from hw.noc.output import BUCKETS, Output

__all__ = ["ERROR", "PROBE", "Router", "state"]

ERROR = data.StructLayout({"code": 3, "port": 3, "vc": 2, "dst_x": 4, "dst_y": 4, "src_x": 4, "src_y": 4})
PROBE = data.StructLayout({"port": 3, "vc": 2})


def state(depth):
    """What there is to see of a port and virtual channel.

    Of the input: flits in the buffer, `inside` a packet, the outputs that the flit in front `wants`. Of the
    output: flits that are or may be in the buffer behind it (the rest is credit), a packet is on it (`busy`),
    and whose: it came in by `owner_port`, `owner_vc`.
    """
    return data.StructLayout({"buffered": depth, "inside": 1, "wants": 5,
                              "used": depth, "busy": 1, "owner_port": 3, "owner_vc": 2})


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
    state : Out(state(depth))
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
            "error": Out(ERROR), "clear": In(1), "probe": In(PROBE), "state": Out(state(depth)),
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
        self.given = {where: Signal(self.vcs, name=f"{where[0].name.lower()}{where[1]}_channel")
                      for where in self.lanes}         # the virtual channel that its packet has been given
        self.buckets = {}
        for where, lane in self.lanes.items():
            header = data.View(HEADER, lane.o.data[:64])
            number = Signal(range(BUCKETS), name=f"{where[0].name.lower()}{where[1]}_bucket")
            m.d.comb += number.eq(bucket(header.dst_x, header.dst_y))
            self.buckets[where] = Cat(number == n for n in range(BUCKETS))

        self.owners = {}
        taken = {where: [] for where in self.lanes}
        for out in self.ports:
            candidates = [[(port, vc) for vc in range(self.vcs) if out in self.lanes[port, vc].outputs]
                          for port in self.ports]
            candidates = [each for each in candidates if each]
            if candidates:
                self._output(m, out, candidates, taken)
        for where, lane in self.lanes.items():
            m.d.comb += lane.taken.eq(Cat(grant for grant, _ in taken[where]).any())
            with m.If(lane.taken & ~lane.inside):
                m.d.sync += self.given[where].eq(reduce(or_, (Mux(grant, choice, 0) for grant, choice in taken[where])))

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
            m.d.comb += [
                unit.wants[n].eq(lane.wants[out]), unit.inside[n].eq(lane.inside), unit.tail[n].eq(lane.o.tail),
                unit.drop[n].eq(lane.drop), unit.bucket[n].eq(self.buckets[where]), unit.channel[n].eq(self.given[where]),
            ]
            taken[where].append((unit.grant[n], unit.choice[n]))
            route = getattr(lane, f"ahead_{out.name.lower()}")
            odd = Cat(unit.choice[n][w] for w in range(self.vcs) if w.bit_count() & 1).any()
            leg = Signal(flit(self.bits), name=f"{out.name.lower()}_leg{n}")
            m.d.comb += [
                leg.data.eq(lane.o.data), leg.head.eq(lane.o.head), leg.tail.eq(lane.o.tail), leg.route.eq(route),
                leg.parity.eq(lane.o.parity ^ route.xor() ^ odd),
            ]
            legs.append(Mux(unit.grant[n], Value.cast(leg), 0))
        domain = m.d.sync if self.registered else m.d.comb
        domain += Value.cast(link.flit).eq(reduce(or_, legs)), link.valid.eq(unit.valid)
        m.d.comb += unit.credit.eq(link.credit)
        self.owners[out] = unit, [where for each in candidates for where in each]

    def _report(self, m):
        """The first error, and the probe."""
        first = Signal(ERROR)
        for (port, vc), lane in reversed(self.lanes.items()):
            header = data.View(HEADER, lane.o.data[:64])
            with m.If(lane.fault != Error.NONE):
                m.d.comb += [
                    first.code.eq(lane.fault), first.port.eq(port), first.vc.eq(vc),
                    first.dst_x.eq(header.dst_x), first.dst_y.eq(header.dst_y),
                    first.src_x.eq(header.src_x), first.src_y.eq(header.src_y),
                ]
        with m.If(self.clear):
            m.d.sync += self.error.eq(0)
        with m.Elif(self.error.code == Error.NONE):
            m.d.sync += self.error.eq(first)

        seen = []
        for (port, vc), lane in self.lanes.items():
            here = Signal(state(self.depth), name=f"{port.name.lower()}{vc}_state")
            m.d.comb += here.buffered.eq(lane.used), here.inside.eq(lane.inside), here.wants.eq(lane.wants)
            if port in self.owners:
                unit, wheres = self.owners[port]
                m.d.comb += here.used.eq(unit.used[vc]), here.busy.eq(unit.busy[vc])
                for where in wheres:
                    owns = self.lanes[where].inside & self.lanes[where].wants[port] & self.given[where][vc]
                    with m.If(owns):
                        m.d.comb += here.owner_port.eq(where[0]), here.owner_vc.eq(where[1])
            asked = (self.probe.port == port) & (self.probe.vc == vc)
            seen.append(Mux(asked, Value.cast(here), 0))
        m.d.comb += Value.cast(self.state).eq(reduce(or_, seen))
