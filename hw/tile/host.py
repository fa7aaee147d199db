# SPDX-License-Identifier: Apache-2.0
"""The host port: AXI4-Lite to the registers of `golden.registers`."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden.registers import REGISTERS, Access
from hw.emit import Block

__all__ = ["AxiLite", "Host", "given", "told"]

ADDRESS = 12        # bits of a register's address
SLVERR = 2


class AxiLite(wiring.Signature):
    """An AXI4-Lite port of 32 bits (Arm IHI 0022) as its slave has it; `prot` is left out."""

    def __init__(self):
        members = {}
        for way in "aw", "ar":
            members |= {f"{way}addr": In(ADDRESS), f"{way}valid": In(1), f"{way}ready": Out(1)}
        super().__init__(members | {
            "wdata": In(32), "wstrb": In(4), "wvalid": In(1), "wready": Out(1),
            "bresp": Out(2), "bvalid": Out(1), "bready": In(1),
            "rdata": Out(32), "rresp": Out(2), "rvalid": Out(1), "rready": In(1),
        })


def given():
    """What the host sets and asks for, by register and field."""
    return _fields(lambda access: access is not Access.READ)


def told():
    """What the tile tells."""
    return _fields(lambda access: access is Access.READ)


class Host(Block):
    """Reads and writes registers, one access at a time. A write of some bytes of a word changes these alone.

    Accesses elsewhere are answered by SLVERR and change nothing.

    Members
    -------
    port : Out(AxiLite())
    o : Out(given())
        Fields to act on are up for a cycle.
    i : In(told())
    """

    def __init__(self):
        super().__init__({"port": Out(AxiLite()), "o": Out(given()), "i": In(told())})

    def elaborate(self, platform):
        m, port = Module(), self.port

        # A write goes when address and data are there and its response has room.
        writes, lanes, known = Signal(), Signal(32), Signal()
        m.d.comb += [
            writes.eq(port.awvalid & port.wvalid & ~port.bvalid), port.awready.eq(writes), port.wready.eq(writes),
            lanes.eq(Cat(bit.replicate(8) for bit in port.wstrb)),
        ]
        pulses = Signal(given())
        with m.If(port.bready):
            m.d.sync += port.bvalid.eq(0)
        with m.If(writes):
            m.d.sync += port.bvalid.eq(1), port.bresp.eq(Mux(known, 0, SLVERR))

        reads, found, there = Signal(), Signal(32), Signal()
        m.d.comb += reads.eq(port.arvalid & ~port.rvalid), port.arready.eq(reads)
        with m.If(port.rready):
            m.d.sync += port.rvalid.eq(0)
        with m.If(reads):
            m.d.sync += port.rvalid.eq(1), port.rdata.eq(found), port.rresp.eq(Mux(there, 0, SLVERR))

        for each in REGISTERS:
            written, read = Signal(name=f"{each.name}_written"), Signal(name=f"{each.name}_read")
            m.d.comb += [
                written.eq(port.awaddr[2:] == each.address >> 2), read.eq(port.araddr[2:] == each.address >> 2),
            ]
            with m.If(written):
                m.d.comb += known.eq(1)
            with m.If(read):
                m.d.comb += there.eq(1)
            for field in each.fields:
                place = slice(field.at, field.at + field.bits)
                if field.access is Access.READ:
                    shown = self.i[each.name][field.name]
                else:
                    shown = Const(0, field.bits) if field.access is Access.PULSE else self.o[each.name][field.name]
                    new = shown & ~lanes[place] | port.wdata[place] & lanes[place]
                    target = pulses if field.access is Access.PULSE else self.o
                    with m.If(writes & written):
                        m.d.sync += target[each.name][field.name].eq(new)
                    if field.access is Access.PULSE:
                        with m.Else():
                            m.d.sync += target[each.name][field.name].eq(0)
                        m.d.comb += self.o[each.name][field.name].eq(target[each.name][field.name])
                with m.If(read):
                    m.d.comb += found[place].eq(shown)
        return m


def _fields(wanted):
    registers = {}
    for each in REGISTERS:
        fields = {field.name: field.bits for field in each.fields if wanted(field.access)}
        if fields:
            registers[each.name] = data.StructLayout(fields)
    return data.StructLayout(registers)
