# SPDX-License-Identifier: Apache-2.0
"""The ULX3S: a Lattice ECP5 85F, a 25 MHz crystal and a USB serial port."""

import re
from typing import NamedTuple

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from hw.emit import verilog

__all__ = ["CRYSTAL", "Design", "design", "pll"]

CRYSTAL = 25    # MHz


def pll(megahertz):
    """Dividers of the PLL for a clock of that many MHz: (input, feedback, output).

    The oscillator, which is `output` times the clock, runs at 400 to 800 MHz, as near 600 as can be.
    Source: Lattice FPGA-TN-02200, table of the PLL's dividers; FPGA-DS-02012, sysCLOCK PLL timing.

    Raises
    ------
    ValueError
        When no dividers give exactly this frequency.
    """
    for divider in (1, 2, 3, 4, 5):             # the phase detector sees 5 MHz or more
        feedback = megahertz * divider / CRYSTAL
        if feedback == int(feedback) and 5 <= megahertz <= 400:
            output = round(600 / megahertz)
            if 1 <= output <= 128 and 400 <= output * megahertz <= 800:
                return divider, int(feedback), output
    raise ValueError(f"ulx3s: clock must be a multiple of 25 MHz / 1 to 5, from 5 to 400 MHz, not {megahertz!r}")


class _Top(Elaboratable):
    """The board's pins and clock around the module `name`, which is Verilog from elsewhere."""

    def __init__(self, name, megahertz):
        self.name, self.dividers = name, pll(megahertz)

    def elaborate(self, platform):
        m = Module()
        divider, feedback, output = self.dividers
        uart = platform.request("uart", dir={name: "-" for name in ("rx", "tx", "rts", "dtr")})
        m.submodules.clock = clock = io.Buffer("i", platform.request("clk25", dir="-"))
        m.submodules.button = button = io.Buffer("i", platform.request("button_fire", dir="-"))
        m.submodules.rx, m.submodules.tx = rx, tx = io.Buffer("i", uart.rx), io.Buffer("o", uart.tx)
        leds = [io.Buffer("o", platform.request("led", n, dir="-")) for n in range(8)]
        m.submodules += leds
        locked = Signal()
        m.domains.sync = ClockDomain()
        m.submodules.pll = Instance(
            "EHXPLLL",
            a_FREQUENCY_PIN_CLKI=str(CRYSTAL), a_FREQUENCY_PIN_CLKOP=str(CRYSTAL * feedback / divider),
            p_CLKI_DIV=divider, p_CLKFB_DIV=feedback, p_CLKOP_DIV=output, p_CLKOP_CPHASE=output - 1,
            p_CLKOP_ENABLE="ENABLED", p_FEEDBK_PATH="CLKOP",
            i_CLKI=clock.i, i_CLKFB=ClockSignal(), i_RST=0, i_STDBY=0, i_PLLWAKESYNC=0,
            i_PHASESEL0=0, i_PHASESEL1=0, i_PHASEDIR=0, i_PHASESTEP=0, i_PHASELOADREG=0, i_ENCLKOP=1,
            o_CLKOP=ClockSignal(), o_LOCK=locked)
        m.submodules.reset = ResetSynchronizer(~locked | button.i)
        m.submodules.board = Instance(
            self.name, i_clk=ClockSignal(), i_rst=ResetSignal(),
            i_rx=rx.i, o_tx=tx.o, o_leds=Cat(led.o for led in leds))
        return m


class Design(NamedTuple):
    """What the flow gets.

    Attributes
    ----------
    verilog : str
        All modules of the board.
    board : str
        The `Board`'s module among them.
    shell : str
        RTLIL of the module `top` around it: pins, clock and reset.
    constraints : str
        Pins, in Lattice's preference language.
    """

    verilog: str
    board: str
    shell: str
    constraints: str


def design(board, megahertz):
    """A board for the ULX3S as text.

    Parameters
    ----------
    board : hw.board.board.Board
    megahertz : float
        Clock, see `pll`.

    Returns
    -------
    Design
    """
    from amaranth_boards.ulx3s import ULX3S_85F_Platform

    plan = ULX3S_85F_Platform().prepare(_Top(board.name, megahertz))
    shell = re.sub(r"(?m)^\s*attribute \\src .*\n", "", plan.files["top.il"])    # equal on every machine
    return Design(verilog(board), board.name, shell, plan.files["top.lpf"])
