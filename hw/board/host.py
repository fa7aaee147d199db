# SPDX-License-Identifier: Apache-2.0
"""The board's end of the serial line: `golden.link` in gates."""

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from golden.link import ANSWERS, OPERANDS, Answer, Opcode, size
from hw.emit import Block
from hw.fetch import ADDRESS
from hw.tile.host import AxiLite

__all__ = ["Host"]


def fields(sizes):
    """A struct of fields whose sizes are given in bytes."""
    return data.StructLayout({name: 8 * count for name, count in sizes.items()})


class Host(Block):
    """Takes frames, does what they ask for and answers.

    What comes in during an answer is ignored. Silence of `patience` cycles ends a broken frame.

    Parameters
    ----------
    memory : int
        Bytes.
    patience : int
        Cycles.

    Members
    -------
    received : In(stream.Signature(struct(data, framing), always_ready=True))
    transmitted : Out(stream.Signature(8))
    about : In(fields(ANSWERS[Opcode.IDENTIFY]))
        What to answer.
    registers : In(AxiLite())
        Of the tile.
    write : Out(stream.Signature(struct(address, data), always_ready=True))
    read : Out(stream.Signature(ADDRESS)), found : In(stream.Signature(8))
        Of the memory.
    """

    def __init__(self, memory, patience):
        if patience < 1:
            raise ValueError(f"Host: patience must be at least 1 cycle, not {patience!r}")
        self.memory, self.patience = memory, patience
        super().__init__({
            "received": In(stream.Signature(data.StructLayout({"data": 8, "framing": 1}), always_ready=True)),
            "transmitted": Out(stream.Signature(8)),
            "about": In(fields(ANSWERS[Opcode.IDENTIFY])),
            "registers": In(AxiLite()),
            "write": Out(stream.Signature(data.StructLayout({"address": ADDRESS, "data": 8}), always_ready=True)),
            "read": Out(stream.Signature(ADDRESS)), "found": In(stream.Signature(8)),
        })

    def elaborate(self, platform):
        m = Module()
        received, byte, framing = self.received.valid, self.received.payload.data, self.received.payload.framing
        quiet, silence = Signal(range(self.patience + 1)), Signal()
        m.d.comb += silence.eq(quiet == self.patience)
        with m.If(received):
            m.d.sync += quiet.eq(0)
        with m.Elif(~silence):
            m.d.sync += quiet.eq(quiet + 1)

        # Operands enter at the top, answers leave at the bottom.
        operands = Signal(8 * max(map(size, OPERANDS.values())), reset_less=True)
        answer   = Signal(8 * (1 + max(map(size, ANSWERS.values()))), reset_less=True)
        opcode   = Signal(8, reset_less=True)
        good     = Signal(reset_less=True)                          # the answer is OK
        left     = Signal(16, reset_less=True)                      # bytes still to come
        leaving  = Signal(range(len(answer) // 8 + 1), reset_less=True)
        place    = Signal(ADDRESS, reset_less=True)                 # of the next byte
        span, setting, getting = (                                  # the operands of WRITE are those of READ
            data.View(layout, operands[-layout.size:])
            for layout in (fields(OPERANDS[each]) for each in (Opcode.READ, Opcode.SET, Opcode.GET)))
        port, wants, gives = self.registers, Signal(), Signal()     # an address, and data, are on their way
        m.d.comb += [
            self.read.payload.eq(place),
            self.write.payload.address.eq(place), self.write.payload.data.eq(byte),
            port.awaddr.eq(setting.register), port.wdata.eq(setting.value), port.wstrb.eq(-1),
            port.araddr.eq(getting.register),
        ]

        def reply(code, values=None):
            values = Cat() if values is None else Value.cast(values)
            m.d.sync += answer.eq(Cat(Const(code, 8), values)), leaving.eq(1 + len(values) // 8)
            m.d.sync += good.eq(code == Answer.OK)
            m.next = "ANSWER"

        with m.FSM():
            with m.State("OPCODE"):
                m.d.sync += opcode.eq(byte)
                with m.If(received):
                    with m.Switch(byte):
                        for known, sizes in OPERANDS.items():
                            with m.Case(known.value):
                                m.d.sync += left.eq(size(sizes))
                                m.next = "OPERANDS" if sizes else "EXECUTE"
                        with m.Default():
                            reply(Answer.OPCODE)
                    with m.If(framing):
                        reply(Answer.FRAMING)

            with m.State("OPERANDS"):
                with m.If(received):
                    m.d.sync += operands.eq(Cat(operands[8:], byte)), left.eq(left - 1)
                    with m.If(framing):
                        reply(Answer.FRAMING)
                    with m.Elif(left == 1):
                        m.next = "EXECUTE"
                with m.Elif(silence):
                    reply(Answer.TIMEOUT)

            with m.State("EXECUTE"):
                m.d.sync += left.eq(span.count), place.eq(span.address), wants.eq(1), gives.eq(1)
                with m.Switch(opcode):
                    with m.Case(Opcode.IDENTIFY.value):
                        reply(Answer.OK, self.about)
                    with m.Case(Opcode.SET.value):
                        m.next = "SET"
                    with m.Case(Opcode.GET.value):
                        m.next = "GET"
                    with m.Default():
                        with m.If(span.address + span.count > self.memory):
                            reply(Answer.ADDRESS)
                        with m.Elif((opcode == Opcode.READ.value) | (span.count == 0)):
                            reply(Answer.OK)
                        with m.Else():
                            m.next = "WRITE"

            with m.State("SET"):
                m.d.comb += port.awvalid.eq(wants), port.wvalid.eq(gives), port.bready.eq(1)
                m.d.sync += wants.eq(wants & ~port.awready), gives.eq(gives & ~port.wready)
                with m.If(port.bvalid & (port.bresp == 0)):
                    reply(Answer.OK)
                with m.Elif(port.bvalid):
                    reply(Answer.REGISTER)

            with m.State("GET"):
                m.d.comb += port.arvalid.eq(wants), port.rready.eq(1)
                m.d.sync += wants.eq(wants & ~port.arready)
                with m.If(port.rvalid & (port.rresp == 0)):
                    reply(Answer.OK, port.rdata)
                with m.Elif(port.rvalid):
                    reply(Answer.REGISTER)

            with m.State("WRITE"):
                with m.If(received):
                    m.d.comb += self.write.valid.eq(~framing)
                    m.d.sync += place.eq(place + 1), left.eq(left - 1)
                    with m.If(framing):
                        reply(Answer.FRAMING)
                    with m.Elif(left == 1):
                        reply(Answer.OK)
                with m.Elif(silence):
                    reply(Answer.TIMEOUT)

            with m.State("ANSWER"):
                m.d.comb += self.transmitted.valid.eq(1), self.transmitted.payload.eq(answer)
                with m.If(self.transmitted.ready):
                    m.d.sync += answer.eq(answer[8:]), leaving.eq(leaving - 1)
                    with m.If(leaving == 1):
                        m.next = "OPCODE"
                        with m.If(~good):
                            m.next = "IGNORE"
                        with m.Elif((opcode == Opcode.READ.value) & (left != 0)):
                            m.next = "ASK"

            with m.State("ASK"):
                m.d.comb += self.read.valid.eq(1)
                with m.If(self.read.ready):
                    m.next = "READ"

            with m.State("READ"):
                m.d.comb += [
                    self.transmitted.valid.eq(self.found.valid), self.transmitted.payload.eq(self.found.payload),
                    self.found.ready.eq(self.transmitted.ready),
                ]
                with m.If(self.found.valid & self.found.ready):
                    m.d.sync += place.eq(place + 1), left.eq(left - 1)
                    m.next = "ASK"
                    with m.If(left == 1):
                        m.next = "OPCODE"

            with m.State("IGNORE"):
                with m.If(silence):
                    m.next = "OPCODE"
        return m
