# SPDX-License-Identifier: Apache-2.0
"""What connects two routers, and what kinds of traffic there are."""

from dataclasses import dataclass

from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from golden import packet

__all__ = ["HEADER", "Link", "Traffic", "channels", "flit"]

HEADER = data.StructLayout(packet.HEADER)


@dataclass(frozen=True)
class Traffic:
    """What a router has to know of a class of messages.

    Attributes
    ----------
    vcs : int
        Virtual channels of its own.
    order : str
        "xy" or "yx": the dimension that its packets travel first.
    multicast : bool
        Packets may go to rectangles of nodes; none has more flits than a buffer.
    reduce : bool
        All packets are reductions: they go where their groups say, not where their heads do.
    """

    vcs: int = 1
    order: str = "xy"
    multicast: bool = False
    reduce: bool = False


class Link(wiring.Signature):
    """A link as its sender has it. A flit may be sent while there is a credit: there is no ready.

    Parameters
    ----------
    bits : int
        Data of a flit.
    vcs : int
        Virtual channels.

    Members
    -------
    flit : Out(flit(bits))
    valid : Out(vcs)
        The virtual channel that the flit is for; at most one bit.
    credit : In(vcs)
        A slot of the receiver's buffer is free again. Out of a register of the receiver.
    """

    def __init__(self, bits, vcs):
        super().__init__({"flit": Out(flit(bits)), "valid": Out(vcs), "credit": In(vcs)})


def flit(bits):
    """A flit on a link, as `golden.packet.flit` says."""
    return data.StructLayout(packet.flit(bits))


def channels(traffic):
    """The class of each virtual channel, and the numbers of the channels of that class."""
    found = []
    for each in traffic:
        numbers = tuple(range(len(found), len(found) + each.vcs))
        found += [(each, numbers)] * each.vcs
    return found
