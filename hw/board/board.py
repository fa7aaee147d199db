# SPDX-License-Identifier: Apache-2.0
"""Engine, memory and serial line: all of a board but its pins."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import In, Out, connect

from golden.link import ANSWERS, OPERANDS, VERSION, Opcode
from hw.board.host import LONGEST, Host, fields
from hw.board.memory import Memory
from hw.board.results import Results
from hw.board.uart import Receiver, Transmitter
from hw.matmul.engine import Engine, reads
from hw.matmul.ports import Part

__all__ = ["Board"]


class Board(Part):
    """A matmul engine whose operands and results lie in memory on the chip, for a host at a serial line.

    One command at a time. See `golden.link` for what goes over the line and `sw.board` for a host.

    Parameters
    ----------
    config : golden.config.Matmul
    memory : int
        Bytes, a power of two.
    divisor : int
        Cycles a bit of the line.
    patience : int
        Cycles of silence that end a broken frame; by default those of 4,000 bytes, 40 ms at 1 Mbaud.

    Members
    -------
    rx : In(1), tx : Out(1)
        The line, from and to the host.
    leds : Out(8)
        From bit 0: a command is under way; the last one reached beyond the memory; its error (3 bits);
        something comes in; something goes out; 1.
    """

    def __init__(self, config, memory, divisor, patience=None):
        self.config, self.memory, self.divisor = config, memory, divisor
        self.patience = 40_000 * divisor if patience is None else patience
        super().__init__({"rx": In(1), "tx": Out(1), "leds": Out(8)})

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.engine = engine = Engine(config)
        m.submodules.receiver = receiver = Receiver(self.divisor)
        m.submodules.transmitter = transmitter = Transmitter(self.divisor)
        m.submodules.host = host = Host(self.memory, self.patience)
        m.d.comb += receiver.line.eq(self.rx), self.tx.eq(transmitter.line)
        connect(m, receiver.o, host.received)
        connect(m, host.transmitted, transmitter.i)

        # The host comes first in memory, since it asks for little and must never be kept from writing.
        readers = reads(config)
        m.submodules.memory = memory = Memory(
            self.memory, ((1, LONGEST, 1), *((bits // 8, beats, rows) for bits, beats, rows in readers.values())),
            (1, 4 * config.drain))
        m.submodules.results = results = Results(config)
        connect(m, host.write, memory.write0)
        connect(m, host.read, memory.request0)
        m.d.comb += [
            host.read_data.valid.eq(memory.response0.valid),
            host.read_data.payload.eq(memory.response0.payload.data),
            memory.response0.ready.eq(host.read_data.ready),
        ]
        for n, name in enumerate(readers, 1):
            connect(m, getattr(engine, f"{name}_request"), getattr(memory, f"request{n}"))
            connect(m, getattr(memory, f"response{n}"), getattr(engine, name))
        connect(m, engine.results, results.i)
        connect(m, results.o, memory.write1)

        # One command at a time, so that its `y` may stay in registers.
        asked = Signal(fields(OPERANDS[Opcode.START]), reset_less=True)
        status = Signal(fields(ANSWERS[Opcode.STATUS]))
        given, starts = Signal(), Signal()          # the engine has taken the command
        m.d.comb += [
            host.start.ready.eq(~status.busy),
            starts.eq(host.start.valid & host.start.ready),
            engine.commands.valid.eq(status.busy & ~given),
            *(engine.commands.payload[name].eq(asked[name])
              for name, _ in engine.commands.payload.shape() if name in OPERANDS[Opcode.START]),
            engine.completions.ready.eq(1),
            engine.clear.eq(starts), memory.clear.eq(starts),
            results.y.eq(asked.y), results.y_pitch.eq(asked.y_pitch), results.y_format.eq(asked.y_format),
        ]
        with m.If(starts):
            m.d.sync += asked.eq(host.start.payload), given.eq(0)
            m.d.sync += status.busy.eq(1), status.tag.eq(host.start.payload.tag), status.cycles.eq(0)
        with m.Elif(status.busy):
            m.d.sync += status.cycles.eq(status.cycles + 1)
            with m.If(engine.commands.ready):
                m.d.sync += given.eq(1)
            with m.If(engine.completions.valid):
                m.d.sync += status.busy.eq(0), status.nans.eq(engine.completions.payload.nans)

        sizes = {"version": VERSION, "lanes": config.lanes, "rows": config.rows, "drain": config.drain,
                 "cols": config.cols, "acc_rows": config.acc_rows, "memory": self.memory}
        m.d.comb += [
            *(host.about[name].eq(value) for name, value in sizes.items()),
            host.status.eq(status), host.status.fault.eq(memory.fault), host.status.error.eq(engine.error),
            self.leds.eq(Cat(status.busy, memory.fault, engine.error, ~self.rx, ~self.tx, 1)),
        ]
        return m
