# SPDX-License-Identifier: Apache-2.0
"""Contracts of `hw.noc.interface` and its parts: packets are golden's, no flit without a credit, whatever comes.

What a packet must look like is golden's to say: routes and refusals are tables of what it answers for every
rectangle, on and off a small mesh. Links may bring anything, as long as they keep to their credits.
"""

from itertools import product

from amaranth.hdl import Cat, Const, Mux, Signal, Value
from amaranth.lib import data

from golden.config import Noc, NocClass
from golden.noc import Message, refusal, tree
from golden.packet import EXTRA, Error, bucket
from hw.noc.interface import Interface
from hw.noc.link import HEADER
from hw.noc.receiver import Receiver, Replies, parity
from hw.noc.sender import Sender
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["QUICK", "TASKS", "InterfaceRules", "ReceiverRules", "RepliesRules", "SenderRules", "SoundRules"]

REQUEST, REPLY = NocClass(name="request"), NocClass(name="reply", replies_to="request")
CAST, SUMS = NocClass(name="cast", multicast=True), NocClass(name="sums", reduce=True)
MESH = Noc(width=3, height=2, depth=3, groups=2, reply_buffer=3, classes=(REQUEST, REPLY, CAST, SUMS))
TWO = Noc(width=2, height=2, depth=2, classes=(NocClass(name="data", vcs=2),))
ASKING = Noc(width=2, height=1, depth=2, reply_buffer=2, classes=(REQUEST, REPLY))


class SenderRules(Contract):
    """Each message becomes its packets, or is refused and its words swallowed."""

    def rules(self, m, block):
        command, i, config, kind = block.command, block.i, block.config, block.config[block.kind]
        size, given, flit = config.segment(block.kind), command.payload, block.flit
        takes, sends, word = self.moves(command), block.valid & block.taken, self.moves(i)
        x, y = self.some(4, "x"), self.some(4, "y")
        self.require("the node is on the mesh, and stays there",
                     (block.x == x) & (block.y == y) & (x < config.width) & (y < config.height))
        self.require("command holds", self.steady(command))
        self.require("i holds", self.steady(i))
        self.require("messages are short, but for that there are several packets", ~command.valid | (given.length < 8))

        # What golden says of the command
        error, route = Signal(Error), Signal(5)
        m.d.comb += error.eq(Error.OUTSIDE)
        message = Signal(given.shape())         # whose flits are on their way
        for source, dst, ext in self._rectangles(config):
            case = Message(source, block.kind, dst, ext)
            place = (x == source[0]) & (y == source[1])
            for fields, name in ((given, "error"), (message, "route")):
                here = place & (fields.dst_x == dst[0]) & (fields.dst_y == dst[1]) & (
                    fields.ext_x == ext[0]) & (fields.ext_y == ext[1])
                with m.If(here):
                    if name == "error":
                        m.d.comb += error.eq(self._error(case, config, kind, given))
                    elif not refusal(config, case) and not kind.reduce:
                        ports = tree(config.order(block.kind), source, dst, ext)[source][1]
                        m.d.comb += route.eq(sum(1 << port for port in ports))

        # The message, as far as its flits have left
        owed, left, swallow = Signal(16), Signal(range(size + 1)), Signal(16)
        begun, sent_head, last_word = Signal(), Signal(), Signal(config.data)
        header = data.View(HEADER, flit.data[:EXTRA])
        cut = Signal.like(left)
        m.d.comb += cut.eq(Mux(owed > size, size, owed))
        with m.If(sends & flit.head):
            m.d.sync += owed.eq(owed - cut), left.eq(cut), begun.eq(0)
        with m.If(sends & ~flit.head):
            m.d.sync += left.eq(left - 1)
        with m.If(takes & (error == Error.NONE)):
            m.d.sync += message.eq(given), owed.eq(given.length), begun.eq(1)
        with m.If(takes & (error != Error.NONE)):
            m.d.sync += swallow.eq(given.length)
        with m.If((swallow != 0) & word):
            m.d.sync += swallow.eq(swallow - 1)
        with m.If(word & (swallow == 0)):
            m.d.sync += last_word.eq(i.payload)
        m.d.sync += sent_head.eq(takes & (error == Error.NONE))

        waits, held = Signal(), Signal(flit.shape())
        m.d.sync += waits.eq(block.valid & ~block.taken), held.eq(flit)
        heads = begun | (owed != 0)             # there are heads to come
        self.promise("a flit waits as it is", ~waits | block.valid & (flit == held))
        self.promise("flits are of a message", ~block.valid | (left != 0) | heads)
        self.promise("a head comes when the packet before it is complete", ~block.valid | (flit.head == (left == 0)))
        head, tail = block.valid & flit.head, block.valid & flit.tail
        self.promise("packets are as long as they can be", ~head | (header.length == cut))
        self.promise("the last one says so", ~head | (header.last == (owed <= size)))
        self.promise("a packet ends with its last flit",
                     ~block.valid | (flit.tail == Mux(flit.head, cut == 0, left == 1)))
        same = [getattr(header, name) == getattr(message, name)
                for name in ("dst_x", "dst_y", "ext_x", "ext_y", "chip", "op", "tag", "reserve", "user")]
        self.promise("its header is the command's", ~head | Cat(same).all())
        self.promise("it comes from this node", ~head | (header.src_x == x) & (header.src_y == y))
        self.promise("it takes golden's outputs", ~block.valid | (flit.route == Mux(flit.head, route, 0)))
        self.promise("its parity is even but for the virtual channel", ~block.valid | ~Value.cast(flit).xor())
        self.promise("its bucket is that of its destination",
                     ~block.valid | (block.bucket == bucket(message.dst_x, message.dst_y)))
        self.promise("a body is the word that came", ~block.valid | flit.head | (flit.data == last_word))
        self.promise("a word is taken when the one before it goes", ~word | (swallow != 0) | ~block.valid | block.taken)
        self.promise("a head is there a cycle after its command", ~sent_head | head)
        expects = (left != 0) & (left != 1) | (left == 1) & (~block.valid | flit.head) | head & (cut != 0)
        self.promise("no more words than the message has", ~word | (swallow != 0) | expects)
        self.promise("words of a packet that has begun pass as they come", ~(
            (block.taken | ~block.valid) & (head & (cut != 0) | (left > 1) | (left == 1) & ~block.valid)) | i.ready)
        self.promise("what is refused is swallowed at once", (swallow == 0) | i.ready & ~command.ready)
        idle = (swallow == 0) & (left <= tail) & (owed <= Mux(head, size, 0)) & ~(begun & ~head) & (~head | (cut == 0))
        self.promise("one message at a time", ~takes | idle)
        fits = (given.reserve <= block.room) if block.replies else 1
        self.promise("a command that may go is taken", ~(
            idle & command.valid & ((error != Error.NONE) | (~block.valid | block.taken) & fits)) | takes)
        self.promise("refusals are golden's", block.fault.code == Mux(takes, error, Error.NONE))
        self.promise("and are told of", (block.fault.code == 0) | (
            (block.fault.x == given.dst_x) & (block.fault.y == given.dst_y) & (block.fault.tag == given.tag)))
        if block.replies:
            self.promise("a request takes the place of its reply",
                         block.reserve == Mux(takes & (error == Error.NONE), given.reserve, 0))
            self.promise("which is there", block.reserve <= block.room)
            self.reach("a request waits for place", self.after(command.valid & idle & ~fits) & takes & (owed == 0))
        self.reach("a flit follows another message's", takes & sends & (error == Error.NONE))
        if not kind.reduce:
            self.reach("words are swallowed", self.after(swallow == 2) & (swallow == 0))
        if size < 8:
            self.reach("a message of three packets", self.after(owed > 2 * size) & sends & header.last & flit.head)

    def _rectangles(self, config):
        """Source, corner and extent of all rectangles on the mesh, from all nodes."""
        nodes = list(product(range(config.width), range(config.height)))
        for source, dst in product(nodes, nodes):
            for ext in product(range(config.width - dst[0]), range(config.height - dst[1])):
                yield source, dst, ext

    def _error(self, case, config, kind, given):
        """What golden says of a message whose tag and reserve are still open."""
        if code := refusal(config, case):
            return code
        beyond = given.reserve > config.reply_buffer
        late = Mux(beyond, Error.RESERVE, Error.NONE)
        return Mux(given.tag >= config.groups, Error.NO_GROUP, late) if kind.reduce else late

    def visible(self, block):
        return {"flit": block.valid, "bucket": block.valid, "fault": block.fault.code != 0}


class ReceiverRules(Contract):
    """Any flits may come. One of them is followed."""

    sound = False       # whether what comes is undamaged

    def rules(self, m, block):
        o, count, depth = block.o, len(block.vcs), block.depth
        used = [Signal(range(depth + 2), name=f"used{n}") for n in range(count)]
        for n in range(count):
            m.d.sync += used[n].eq(used[n] + block.valid[n] - block.credit[n])
            self.require(f"a flit on {n} has a credit", ~block.valid[n] | (used[n] != depth))
            self.promise(f"no credit on {n} comes from nothing", ~block.credit[n] | (used[n] != 0))
        self.require("one flit at a time", (block.valid & (block.valid - 1)) == 0)
        moved, gone = Signal(), Signal.like(block.dropped)      # in the cycle before
        word = Signal(o.payload.shape())
        m.d.sync += moved.eq(self.moves(o)), gone.eq(block.dropped), word.eq(o.payload)
        self.promise("o holds", self.steady(o))
        self.promise("each flit that leaves gives a credit, and no other",
                     sum((block.credit[n] for n in range(1, count)), block.credit[0]) == moved + gone)

        # Frames
        inside, length, marked = Signal(), Signal(8), Signal()
        with m.If(self.moves(o)):
            m.d.sync += inside.eq(~o.payload.last), marked.eq(o.payload.error)
            m.d.sync += length.eq(Mux(inside, length, data.View(HEADER, o.payload.data[:EXTRA]).length) - 1)
        due = Mux(inside, length, data.View(HEADER, o.payload.data[:EXTRA]).length)
        self.promise("packets do not overlap", ~o.valid | (o.payload.first == ~inside))
        self.promise("none is longer than its header says", ~o.valid | (due != 0) | o.payload.last)
        self.promise("what is shorter is marked", ~(o.valid & o.payload.last & (due != 0)) | o.payload.error)
        self.promise("a mark stays to the end", ~(o.valid & inside & marked) | o.payload.error)

        # Any one flit
        follow, way = self.any(1, "follow"), self.some(range(max(count, 2)), "way")
        self.require("some virtual channel is followed", way < count)
        arrives = block.valid.bit_select(way, 1)
        leaves = block.credit.bit_select(way, 1)
        there = sum((Mux(way == n, used[n], 0) for n in range(1, count)), Mux(way == 0, used[0], 0))
        followed, ahead, item = Signal(), Signal(range(depth + 1)), Signal(block.flit.shape())
        with m.If(arrives & follow & ~followed):
            m.d.sync += followed.eq(1), ahead.eq(there - leaves), item.eq(block.flit)
        with m.If(followed & leaves):
            m.d.sync += ahead.eq(ahead - 1)
            with m.If(ahead == 0):
                m.d.sync += followed.eq(0)
        turn = followed & leaves & (ahead == 0)
        odd = Signal()
        m.d.comb += odd.eq(sum((Mux(way == n, parity(item, vc), 0) for n, vc in enumerate(block.vcs)), Const(0))[0])
        whole = (gone == 0) & turn      # it was delivered for sure
        self.promise("a flit is delivered as it came", ~whole | (word.data == item.data))
        self.promise("damage is marked", ~(whole & odd) | word.error)
        self.promise("a packet ends at its end", ~(whole & item.tail) | word.last)
        self.promise("a packet begins with a head", ~(whole & word.first) | item.head & ~odd)
        self.promise("a sound head is not dropped", ~(turn & item.head & ~odd) | moved)

        self._progress(m, block, used, inside)

        self.promise("what is dropped or marked is reported", (block.dropped == 0) | (block.fault.code != 0))
        self.promise("nothing else is",
                     (block.fault.code == 0) | (block.dropped != 0) | self.moves(o) & o.payload.error)
        self.promise("no overflow", block.fault.code != Error.OVERFLOW)
        self.reach("a full buffer, emptied", self.after(used[0] == depth) & (used[0] == 0))
        if self.sound:
            self._sound(m, block, moved, word)
        else:
            self.reach("a flit is dropped, a packet delivered", self.after(gone != 0) & moved & word.last & ~word.error)
            self.reach("a packet is marked", moved & word.last & word.error & ~word.first)

    def _progress(self, m, block, used, inside):
        """Between packets, what there is is on offer or dropped."""
        here = Cat((used[n] > block.credit[n]) for n in range(len(block.vcs))).any()
        if len(block.vcs) == 1:
            self.promise("what there is is on offer, or dropped", ~here | block.o.valid | (block.dropped != 0))
        else:
            self.promise("between packets what there is is on offer, or dropped",
                         ~here | inside | block.o.valid | (block.dropped != 0))

    def _sound(self, m, block, moved, word):
        """Sound packets are neither dropped nor marked, and of any two that which came first goes first."""
        for n, vc in enumerate(block.vcs):
            left = Signal(9, name=f"due{n}")        # flits of the packet on its way
            length = data.View(HEADER, block.flit.data[:EXTRA]).length
            due = Mux(left == 0, length, left - 1)
            with m.If(block.valid[n]):
                m.d.sync += left.eq(due)
            self.require(f"flits on {n} are sound", ~block.valid[n] | ~parity(block.flit, vc) & (
                block.flit.head == (left == 0)) & (block.flit.tail == (due == 0)))
        self.promise("nothing is dropped", block.dropped == 0)
        self.promise("nothing is marked", ~block.o.valid | ~block.o.payload.error)
        self.promise("nothing is reported", block.fault.code == 0)

        one, two = self.some(8, "one"), self.some(8, "two")     # tags of two packets
        tag = data.View(HEADER, block.flit.data[:EXTRA]).tag
        head = block.valid.any() & block.flit.head
        first, second = self.after(head & (tag == one)), self.after(head & (tag == two))
        self.require("of two tags each comes once, one before the other", ~head | (one != two) & (
            (tag == one) & ~first | (tag == two) & first & ~second | (tag != one) & (tag != two)))
        out = moved & word.first
        told = data.View(HEADER, word.data[:EXTRA]).tag
        self.promise("packets are delivered in the order of their heads",
                     ~(out & (told == two)) | self.after(out & (told == one)))

    def visible(self, block):
        return {"fault": block.fault.code != 0}


class SoundRules(ReceiverRules):
    """What comes is undamaged."""

    sound = True


class RepliesRules(Contract):
    """Whoever asks only when there is place never makes a reply wait."""

    def rules(self, m, block):
        i, o, size = block.i, block.o, block.size
        owed, held = Signal(9), Signal(9)
        m.d.sync += owed.eq(owed + block.reserve - self.moves(i) - block.dropped)
        m.d.sync += held.eq(held + self.moves(i) - self.moves(o))
        self.require("i holds", self.steady(i))
        self.require("only replies that were asked for come", owed >= i.valid + block.dropped)
        self.require("place is taken where there is some", block.reserve <= block.room)
        self.require("as many are dropped as there are virtual channels", block.dropped <= block.most)
        self.promise("o holds", self.steady(o))
        self.promise("a reply never waits", ~i.valid | i.ready)
        self.promise("all place is free, taken or filled", block.room + owed + held == size)
        self.promise("what is there is on offer", o.valid == (held != 0))
        self.reach("all place taken, filled, and free again", self.after(held == size) & (block.room == size))


class InterfaceRules(Contract):
    """At its links: no flit without a credit, one packet at a time on each virtual channel, and flows in order."""

    def rules(self, m, block):
        config, out, given = block.config, block.o, block.i
        depth, header = config.depth, data.View(HEADER, block.o.flit.data[:EXTRA])
        self.require("the node stays where it is", (block.x == 0) & (block.y == 0))
        for each in config.classes:
            self.require(f"{each.name}_command holds", self.steady(block.port(each.name, "command")))
            self.require(f"{each.name}_i holds", self.steady(block.port(each.name, "i")))
            self.promise(f"{each.name}_o holds", self.steady(block.port(each.name, "o")))
        self.promise("a flit is on one virtual channel", (out.valid & (out.valid - 1)) == 0)
        self.require("so is one that comes", (given.valid & (given.valid - 1)) == 0)

        home = Signal(3)                # any bucket is followed
        m.d.comb += home.eq(self.some(3, "bucket"))
        here = bucket(header.dst_x, header.dst_y) == home
        flying = {}                     # by virtual channel: flits of the bucket among those that hold credits
        for vc in range(config.vcs):
            sent, came = Signal(range(depth + 2), name=f"sent{vc}"), Signal(range(depth + 2), name=f"came{vc}")
            busy = Signal(name=f"busy{vc}")
            m.d.sync += sent.eq(sent + out.valid[vc] - out.credit[vc])
            m.d.sync += came.eq(came + given.valid[vc] - given.credit[vc])
            with m.If(out.valid[vc]):
                m.d.sync += busy.eq(~out.flit.tail)
            self.require(f"credits on {vc} are of flits", ~out.credit[vc] | (sent != 0))
            self.require(f"what comes on {vc} has a credit", ~given.valid[vc] | (came != depth))
            self.promise(f"a flit on {vc} has a credit", ~out.valid[vc] | (sent != depth))
            self.promise(f"a credit on {vc} is of a flit", ~given.credit[vc] | (came != 0))
            self.promise(f"packets on {vc} do not overlap", ~out.valid[vc] | (out.flit.head == ~busy))
            self.promise(f"parity on {vc} is even", ~out.valid[vc] | ~parity(out.flit, vc))
            # Of the flits that hold credits, from the oldest: which are of the bucket?
            mine, of = Signal(depth + 1, name=f"mine{vc}"), Signal(name=f"of{vc}")
            is_mine = Mux(out.flit.head, here, of)
            with m.If(out.valid[vc]):
                m.d.sync += of.eq(is_mine)
            kept = Mux(out.credit[vc], mine >> 1, mine)
            m.d.sync += mine.eq(kept | Mux(out.valid[vc] & is_mine, 1 << (sent - out.credit[vc])[:4], 0))
            flying[vc] = mine.any()
        for each in config.classes:
            for vc in config.channels(each.name):
                for other in config.channels(each.name):
                    if other != vc:
                        self.promise(f"nothing on {vc} overtakes {other}",
                                     ~(out.valid[vc] & out.flit.head & here & flying[other]))
        seen = Signal(block.error.shape())
        m.d.sync += seen.eq(Mux(block.clear, 0, block.error))
        self.promise("the first error stays", (seen.code == 0) | (block.error == seen))


QUICK = [
    Task(Replies(2, 3, 1), RepliesRules),
]

TASKS = [       # parities are beyond `pdr`: what rests on them is shown for a number of cycles
    *(Task(Sender(MESH, each.name), SenderRules, depth=12, patience=40, label=f"sender, {each.name}")
      for each in MESH.classes),
    Task(Receiver(64, 2, (0,)), ReceiverRules, depth=12, patience=60),
    Task(Receiver(64, 3, (1,)), SoundRules, depth=12, patience=60),
    Task(Receiver(64, 2, (0, 1)), ReceiverRules, depth=10, patience=60),
    Task(Receiver(64, 2, (2, 3)), SoundRules, depth=10, patience=60),
    Task(Interface(TWO), InterfaceRules, depth=10, patience=60, cover=0, label="interface, a class of 2 VCs"),
    Task(Interface(ASKING), InterfaceRules, depth=10, patience=60, cover=0, label="interface, requests and replies"),
]
