# SPDX-License-Identifier: Apache-2.0
"""Interface of a node to its router."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.packet import EXTRA, Error
from hw.emit import Block
from hw.noc.link import HEADER, Link
from hw.noc.mesh import traffic
from hw.noc.output import BUCKETS, Output
from hw.noc.receiver import Receiver, Replies, word
from hw.noc.sender import FAULT, Sender, command

__all__ = ["ERROR", "Interface", "streams"]

ERROR = data.StructLayout({**FAULT.members, "kind": 2})
"""A fault, and in which class."""


def streams(config):
    """Members of a node, by class: its `command`s, the words in, `i`, and out, `o`."""
    found = {}
    for each in config.classes:
        found |= {
            f"{each.name}_command": In(stream.Signature(command(config.data))),
            f"{each.name}_i": In(stream.Signature(config.data)),
            f"{each.name}_o": Out(stream.Signature(word(config.data))),
        }
    return found


class Interface(Block):
    """Turns a node's messages into packets, and packets into what the node gets, a flit a cycle each way.

    By class a message is a command and its words; out come packets, whole, those of a sender in order: first the
    header, then the payload. A head flit is on the link a cycle after its command, a word a cycle after it
    came; what comes over the link is delivered in the next cycle, replies in the one after that.

    A request waits until there is place for its reply, `reserve` flits with heads, so replies always sink. What
    is refused, dropped or damaged is reported in `error`; what is refused has its words swallowed.

    Parameters
    ----------
    config : golden.config.Noc

    Members
    -------
    x, y : In(4)
        Where it is.
    <class>_command : In(stream.Signature(command(bits)))
    <class>_i : In(stream.Signature(bits))
        Words of the messages.
    <class>_o : Out(stream.Signature(word(bits)))
        Words of packets.
    i, o : In and Out(Link(bits, vcs))
        From and to the router.
    error : Out(ERROR)
        The first error since `clear`.
    clear : In(1)
    """

    def __init__(self, config):
        self.config = config
        served = [each.replies_to for each in config.classes if each.replies_to]
        if twice := next((name for name in served if served.count(name) > 1), None):
            raise ValueError(f"Interface: requests of class {twice!r} must have replies in one class")
        super().__init__({
            "x": In(4), "y": In(4), **streams(config),
            "i": In(Link(config.data, config.vcs)), "o": Out(Link(config.data, config.vcs)),
            "error": Out(ERROR), "clear": In(1),
        })

    def port(self, name, way):
        """A stream of a class: `way` is "command", "i" or "o"."""
        return getattr(self, f"{name}_{way}")

    def elaborate(self, platform):
        m, names = Module(), [each.name for each in self.config.classes]
        senders = {name: Sender(self.config, name) for name in names}
        receivers = {name: Receiver(self.config.data, self.config.depth, tuple(self.config.channels(name)))
                     for name in names}
        for name in names:
            m.submodules[f"{name}_sender"], m.submodules[f"{name}_receiver"] = senders[name], receivers[name]
            self._receive(m, name, receivers[name], senders)
        self._send(m, list(senders.values()))

        first = Signal(ERROR)
        for n, name in reversed(list(enumerate(names))):
            for fault in senders[name].fault, receivers[name].fault:
                with m.If(fault.code != Error.NONE):
                    m.d.comb += Value.cast(first).eq(Cat(Value.cast(fault), Const(n, 2)))
        with m.If(self.clear):
            m.d.sync += self.error.eq(0)
        with m.Elif(self.error.code == Error.NONE):
            m.d.sync += self.error.eq(first)
        return m

    def _receive(self, m, name, receiver, senders):
        """From the link to the node."""
        vcs = self.config.channels(name)
        mine = slice(vcs.start, vcs.stop)
        m.d.comb += [
            receiver.flit.eq(self.i.flit), receiver.valid.eq(self.i.valid[mine]),
            self.i.credit[mine].eq(receiver.credit),
        ]
        out, requests = flipped(self.port(name, "o")), self.config[name].replies_to
        if not requests:
            connect(m, receiver.o, out)
            return
        replies = Replies(receiver.o.payload.shape(), self.config.reply_buffer, len(vcs))
        m.submodules[f"{name}_replies"] = replies
        connect(m, receiver.o, replies.i)
        connect(m, replies.o, out)
        m.d.comb += [
            replies.dropped.eq(receiver.dropped),
            replies.reserve.eq(senders[requests].reserve), senders[requests].room.eq(replies.room),
        ]

    def _send(self, m, senders):
        """From the node to the link: like an output of a router, whose inputs are the classes."""
        config = self.config
        firsts = tuple((config.channels(sender.kind).start,) for sender in senders)
        m.submodules.output = output = Output(traffic(config), config.depth, firsts, True)
        m.d.comb += output.credit.eq(self.o.credit), self.o.valid.eq(output.valid)
        legs = []
        for n, sender in enumerate(senders):
            channel = Signal(config.vcs, name=f"{sender.kind}_channel")     # which its packet has been given
            odd = Cat(output.choice[n][vc] for vc in range(config.vcs) if vc.bit_count() & 1).any()
            leg = Signal(self.o.flit.shape(), name=f"{sender.kind}_leg")
            connect(m, flipped(self.port(sender.kind, "command")), sender.command)
            connect(m, flipped(self.port(sender.kind, "i")), sender.i)
            m.d.comb += [
                sender.x.eq(self.x), sender.y.eq(self.y), sender.taken.eq(output.grant[n]),
                output.wants[n].eq(sender.valid), output.owns[n].eq(~sender.flit.head),
                output.need[n].eq(self._need(sender)), output.tail[n].eq(sender.flit.tail),
                output.bucket[n].eq(Cat((sender.bucket == h) & sender.flit.head for h in range(BUCKETS))),
                output.channel[n].eq(channel),
                leg.eq(sender.flit), leg.parity.eq(sender.flit.parity ^ odd),
            ]
            with m.If(output.grant[n] & sender.flit.head):
                m.d.sync += channel.eq(output.choice[n])
            legs.append(Mux(output.grant[n], Value.cast(leg), 0))
        m.d.comb += Value.cast(self.o.flit).eq(reduce(or_, legs))

    def _need(self, sender):
        """As of `Lane`: a multicast begins when there is room for all of it."""
        depth, length = self.config.depth, data.View(HEADER, sender.flit.data[:EXTRA]).length
        if not self.config[sender.kind].multicast:
            return 1 << depth - 1
        return Cat(length == depth - 1 - n for n in range(depth))
