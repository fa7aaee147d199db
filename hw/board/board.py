# SPDX-License-Identifier: Apache-2.0
"""Tile, memory and serial line: all of a board but its pins."""

from functools import cached_property

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib.wiring import In, Out, connect

from golden.link import VERSION, fingerprint
from golden.registers import COUNTERS
from hw.board.host import Host
from hw.board.memory import Memory
from hw.board.uart import Receiver, Transmitter
from hw.emit import Block
from hw.tile.tile import Tile

__all__ = ["Board"]


class Board(Block):
    """A tile whose memory is on the chip too, for a host at a serial line.

    See `golden.link` for what goes over the line and `sw.board` for a host.

    Parameters
    ----------
    chip : golden.config.Chip
    memory : int
        Bytes.
    divisor : int
        Cycles a bit of the line.
    patience : int
        Cycles of silence that end a broken frame; by default those of 4,000 bytes, 40 ms at 1 Mbaud.

    Members
    -------
    rx : In(1), tx : Out(1)
        The line, from and to the host.
    leds : Out(8)
        From bit 0: a program runs; one has ended or failed; one has reached beyond the memory; a beat is read;
        written; something comes in; something goes out; 1.
    """

    def __init__(self, chip, memory, divisor, patience=None):
        self.chip, self.memory, self.divisor = chip, memory, divisor
        self.patience = 40_000 * divisor if patience is None else patience
        super().__init__({"rx": In(1), "tx": Out(1), "leds": Out(8)})

    @property
    def name(self):
        return f"board_{self.chip.name}"

    @cached_property
    def parts(self):
        """All of its blocks by name."""
        tile = Tile(self.chip)
        axi = tile.signature.members["axi"].signature
        return {"tile": tile, "memory": Memory(self.memory, axi.beat, axi.address_bits, axi.id_bits),
                "host": Host(self.memory, self.patience),
                "receiver": Receiver(self.divisor), "transmitter": Transmitter(self.divisor)}

    def elaborate(self, platform):
        m = Module()
        for name, part in self.parts.items():
            m.submodules[name] = part
        tile, memory, host, receiver, transmitter = self.parts.values()
        connect(m, tile.axi, memory.axi)
        connect(m, host.registers, tile.host)
        connect(m, host.write, memory.write)
        connect(m, host.read, memory.read)
        connect(m, memory.found, host.found)
        connect(m, receiver.o, host.received)
        connect(m, host.transmitted, transmitter.i)

        about = {"version": VERSION, "memory": self.memory, "chip": fingerprint(self.chip)}
        beyond = Signal()
        m.d.comb += [
            receiver.line.eq(self.rx), self.tx.eq(transmitter.line),
            *(host.about[name].eq(value) for name, value in about.items()),
            self.leds.eq(Cat(tile.events[COUNTERS.index("cycles")], tile.irq, beyond, tile.axi.rvalid, tile.axi.wvalid,
                             ~self.rx, ~self.tx, 1)),
        ]
        with m.If(memory.beyond):
            m.d.sync += beyond.eq(1)
        return m
