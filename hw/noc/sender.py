# SPDX-License-Identifier: Apache-2.0
"""The way into the network: a class's messages become packets."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from golden import packet
from golden.packet import EXTRA, LENGTH, Error, Port
from hw.emit import Block
from hw.noc.link import HEADER, flit

__all__ = ["FAULT", "Sender", "command", "departures"]

OWN = ("src_x", "src_y", "length", "last")      # fields of a header that the interface knows
AXES = {"x": (Port.W, Port.E), "y": (Port.N, Port.S)}       # towards lower and higher numbers

FAULT = data.StructLayout({"code": 4, "x": 4, "y": 4, "tag": 8})
"""What is wrong, an `Error`; with a packet from, or a message to, which node; 0 if that is not known."""


def command(bits):
    """A message: its header, and `length` words of data. `extra` fills head flits of more than 64 bits."""
    fields = {name: width for name, width in packet.HEADER.items() if name not in OWN}
    extra = {"extra": bits - EXTRA} if bits > EXTRA else {}
    return data.StructLayout({**fields, "length": 16, **extra})


def departures(order, x, y, given):
    """The outputs, a bit each, that a packet for a rectangle takes of the router of node x, y that sends it."""
    taken, here, goes_on = {}, {"x": x, "y": y}, 1
    for axis in order:
        low = given[f"dst_{axis}"]
        high = low + given[f"ext_{axis}"]
        for side, beyond in zip(AXES[axis], (low < here[axis], here[axis] < high), strict=True):
            taken[side] = beyond & goes_on
        goes_on = (low <= here[axis]) & (here[axis] <= high)
    return Cat(taken.get(port, 0) for port in Port)


class Sender(Block):
    """Cuts messages of one class into packets. A flit a cycle, latency 1; words pass as they come.

    A message is a command and as many words as it says. One that cannot be sent is refused: its words are
    swallowed, so that those of the next follow. A command is taken when there is place for its reply, and its
    head flit is made then; so words may be offered before it or after.

    Parameters
    ----------
    config : golden.config.Noc
    kind : str
        Name of the class.

    Members
    -------
    x, y : In(4)
        Where the node is.
    command : In(stream.Signature(command(bits)))
    i : In(stream.Signature(bits))
        Words.
    flit : Out(flit(bits))
        `parity` leaves out the virtual channel, which is still to come.
    valid, taken : Out(1), In(1)
        There is a flit; it goes now, which `valid` does not wait for.
    bucket : Out(3)
        Of its packet.
    room : In(LENGTH)
        Flits of reply that there is place for; in a class with replies.
    reserve : Out(LENGTH)
        How many of them are taken, now; in a class with replies.
    fault : Out(FAULT)
        A message that is refused, now.
    """

    def __init__(self, config, kind):
        self.config, self.kind = config, kind
        self.replies = any(each.replies_to == kind for each in config.classes)
        super().__init__({
            "x": In(4), "y": In(4),
            "command": In(stream.Signature(command(config.data))), "i": In(stream.Signature(config.data)),
            "flit": Out(flit(config.data)), "valid": Out(1), "taken": In(1), "bucket": Out(3),
            **({"room": In(LENGTH), "reserve": Out(LENGTH)} if self.replies else {}),
            "fault": Out(FAULT),
        })

    def elaborate(self, platform):
        m, size = Module(), self.config.segment(self.kind)
        given, first = Signal(self.command.payload.shape()), Signal(self.command.payload.shape(), reset_less=True)
        rest = Signal.like(given.length)                    # words of the message behind this packet
        left = Signal(range(size + 1))                      # words of this packet
        refused = Signal()                                  # these words are swallowed
        later, more, cut = Signal(), Signal(), Signal.like(left)
        m.d.comb += [
            later.eq((rest != 0) & ~refused),               # another packet of the message
            given.eq(Mux(later, first, self.command.payload)),
            given.length.eq(Mux(later, rest, self.command.payload.length)),
            more.eq(given.length > size), cut.eq(Mux(more, size, given.length)),
        ]

        # What comes next
        free, idle, may, bad = Signal(), Signal(), Signal(), Signal()
        takes, begins, goes_on = Signal(), Signal(), Signal()   # a command; a packet; a word of it
        error = self._refusal(m)
        m.d.comb += [
            free.eq(~self.valid | self.taken), idle.eq((left == 0) & (rest == 0)),
            may.eq(self.command.payload.reserve <= self.room if self.replies else 1),
            bad.eq(error != Error.NONE),
            self.command.ready.eq(idle & (bad | free & may)),
            takes.eq(self.command.valid & self.command.ready),
            begins.eq(free & (left == 0) & (later | takes & ~bad)),
            self.i.ready.eq(refused | free & (left != 0)),
            goes_on.eq(self.i.valid & self.i.ready & ~refused),
            self.fault.code.eq(Mux(takes, error, Error.NONE)),
            self.fault.x.eq(self.command.payload.dst_x), self.fault.y.eq(self.command.payload.dst_y),
            self.fault.tag.eq(self.command.payload.tag),
        ]
        with m.If(takes & bad):
            m.d.sync += rest.eq(given.length), refused.eq(given.length != 0)
        with m.If(begins):
            m.d.sync += rest.eq(Mux(more, given.length - size, 0)), left.eq(cut)
        with m.If(takes & ~bad):
            m.d.sync += first.eq(self.command.payload)
        with m.If(goes_on):
            m.d.sync += left.eq(left - 1)
        with m.If(refused & self.i.valid):
            m.d.sync += rest.eq(rest - 1), refused.eq(rest != 1)
        if self.replies:
            m.d.comb += self.reserve.eq(Mux(takes & ~bad, self.command.payload.reserve, 0))

        # Its flit
        header, route, now = Signal(HEADER), Signal(len(Port)), Signal(self.flit.shape())
        m.d.comb += [getattr(header, name).eq(getattr(given, name)) for name in packet.HEADER if name not in OWN]
        m.d.comb += [
            header.src_x.eq(self.x), header.src_y.eq(self.y), header.length.eq(cut), header.last.eq(~more),
            route.eq(0 if self.config[self.kind].reduce
                     else departures(self.config.order(self.kind), self.x, self.y, given)),
            now.data.eq(self.i.payload), now.tail.eq(left == 1),
        ]
        with m.If(left == 0):
            m.d.comb += [
                now.data.eq(Cat(Value.cast(header), given.extra) if self.config.data > EXTRA else Value.cast(header)),
                now.head.eq(1), now.tail.eq(cut == 0), now.route.eq(route),
            ]
        with m.If(free):
            m.d.sync += self.valid.eq(begins | goes_on)
        with m.If(begins | goes_on):
            m.d.sync += self.flit.eq(now), self.flit.parity.eq(Value.cast(now).xor())
        with m.If(begins):
            m.d.sync += self.bucket.eq(packet.bucket(given.dst_x, given.dst_y))
        return m

    def _refusal(self, m):
        """Why the command cannot be sent: an `Error`."""
        config, kind, given, found = self.config, self.config[self.kind], self.command.payload, Signal(Error)
        end_x, end_y = given.dst_x + given.ext_x, given.dst_y + given.ext_y
        alone = (given.ext_x == 0) & (given.ext_y == 0)
        to_itself = alone & (given.dst_x == self.x) & (given.dst_y == self.y)
        with m.If((end_x >= config.width) | (end_y >= config.height)):
            m.d.comb += found.eq(Error.OUTSIDE)
        if not kind.multicast:
            with m.Elif(~alone):
                m.d.comb += found.eq(Error.RECTANGLE)
        if not kind.reduce:
            with m.Elif(to_itself):
                m.d.comb += found.eq(Error.SELF)
        else:
            with m.Elif(given.tag >= config.groups):
                m.d.comb += found.eq(Error.NO_GROUP)
        with m.Elif(given.reserve > config.reply_buffer):
            m.d.comb += found.eq(Error.RESERVE)
        return found
