# SPDX-License-Identifier: Apache-2.0
"""The board's end of the serial line: `golden.link` in gates."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from golden.link import ANSWERS, OPERANDS, Answer, Opcode, size
from hw.emit import Block
from hw.fetch import request, write

__all__ = ["LONGEST", "Host", "fields"]

LONGEST = 0xFFFF    # bytes of one write or read


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
    about, status : In(fields(ANSWERS[...]))
        What to answer.
    start : Out(stream.Signature(fields(OPERANDS[Opcode.START])))
        Waits for nobody: who is not ready is busy.
    write : Out(stream.Signature(write(1)))
        Must be ready at all times.
    read : Out(stream.Signature(request(LONGEST, 1))), read_data : In(stream.Signature(8))
    """

    def __init__(self, memory, patience):
        if patience < 1:
            raise ValueError(f"Host: patience must be at least 1 cycle, not {patience!r}")
        self.memory, self.patience = memory, patience
        super().__init__({
            "received": In(stream.Signature(data.StructLayout({"data": 8, "framing": 1}), always_ready=True)),
            "transmitted": Out(stream.Signature(8)),
            "about": In(fields(ANSWERS[Opcode.IDENTIFY])),
            "status": In(fields(ANSWERS[Opcode.STATUS])),
            "start": Out(stream.Signature(fields(OPERANDS[Opcode.START]))),
            "write": Out(stream.Signature(write(1))),
            "read": Out(stream.Signature(request(LONGEST, 1))),
            "read_data": In(stream.Signature(8)),
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
        left     = Signal(range(LONGEST + 1), reset_less=True)      # bytes still to come
        leaving  = Signal(range(len(answer) // 8 + 1), reset_less=True)
        place    = Signal(32, reset_less=True)                      # where the next byte is written
        given    = fields(OPERANDS[Opcode.READ])                    # those of WRITE are the same
        span     = data.View(given, operands[-given.size:])
        m.d.comb += [
            self.start.payload.eq(operands),
            self.read.payload.address.eq(span.address),
            self.read.payload.beats.eq(span.count),
            self.read.payload.rows.eq(1),
            self.write.payload.address.eq(place),
            self.write.payload.data.eq(byte),
            self.write.payload.count.eq(1),
        ]

        def reply(code, values=None):
            values = Signal(0) if values is None else values.as_value()
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
                m.d.sync += left.eq(span.count), place.eq(span.address)
                with m.Switch(opcode):
                    with m.Case(Opcode.IDENTIFY.value):
                        reply(Answer.OK, self.about)
                    with m.Case(Opcode.STATUS.value):
                        reply(Answer.OK, self.status)
                    with m.Case(Opcode.START.value):
                        m.d.comb += self.start.valid.eq(1)
                        with m.If(self.start.ready):
                            reply(Answer.OK)
                        with m.Else():
                            reply(Answer.BUSY)
                    with m.Default():
                        with m.If(span.address + span.count > self.memory):
                            reply(Answer.ADDRESS)
                        with m.Elif((opcode == Opcode.READ.value) | (span.count == 0)):
                            reply(Answer.OK)
                        with m.Else():
                            m.next = "WRITE"

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
                    self.transmitted.valid.eq(self.read_data.valid),
                    self.transmitted.payload.eq(self.read_data.payload),
                    self.read_data.ready.eq(self.transmitted.ready),
                ]
                with m.If(self.read_data.valid & self.transmitted.ready):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 1):
                        m.next = "OPCODE"

            with m.State("IGNORE"):
                with m.If(silence):
                    m.next = "OPCODE"
        return m
