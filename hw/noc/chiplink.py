# SPDX-License-Identifier: Apache-2.0
"""A link between two chips: flits and credits on one side, a line of bytes each way on the other.

Whatever the line loses, damages or brings out of order, each flit arrives once, and in order within its virtual
channel. `golden.framing` has what is on the line, `golden.chiplink` what a side does.
"""

from amaranth.hdl import Array, Cat, Const, Module, Mux, ResetSignal, Shape, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden.framing import HEARD, HELLO, SEQUENCE, STATUS_VC, VC, Error
from hw.emit import Block
from hw.noc.framing import Deframer, Enframer, seed
from hw.noc.link import Link, flit
from hw.ram import Ram

__all__ = ["Arrivals", "Chiplink", "Framer", "Parser", "Replay", "Session"]


def opaque(width, vcs):
    """A `Link` whose flits are so many bits: nothing looks into them here."""
    return wiring.Signature({"flit": Out(width), "valid": Out(vcs), "credit": In(vcs)})


def status(vcs, slots, sequence=SEQUENCE):
    """What a receiver says of a channel: the first flit not delivered, and the slots that hold one."""
    return data.StructLayout({"vc": _number(vcs), "freed": sequence, "map": slots})


def _number(vcs):
    """Bits of a channel's number."""
    return ceil_log2(max(vcs, 2))


def _round(m, requests, last, name):
    """The next of some requests after the last; if there is none, the one after it."""
    count, turn = len(requests), Signal(range(max(len(requests), 2)), name=name)
    with m.Switch(last):
        for n in range(count):
            with m.Case(n):
                m.d.comb += turn.eq((n + 1) % count)
                for k in reversed(range(1, count + 1)):
                    with m.If(requests[(n + k) % count]):
                        m.d.comb += turn.eq((n + k) % count)
    return turn


class Replay(Block):
    """Keeps the flits on their way until their slot at the far side is free again.

    A channel's flits are numbered and lie in the slot of their number. One that is new asks to be sent; so does one
    that is not known to have arrived, once when a later one has, and whenever it was sent a while ago. So many credits
    are given out that there is a slot for each.

    Parameters
    ----------
    width : int
        Bits of a flit.
    vcs : int
    depth : int
        Credits of a channel that the network begins with.
    slots : int
        Of a channel, here and at the far side; a power of two.
    sequence : int
        Bits of a flit's number.

    Members
    -------
    i : In(opaque(width, vcs))
    clear : In(1)
        Forget all flits.
    tick : In(1)
        Three of them after a flit was sent, the next sends it again.
    ack : In(struct(valid, status))
        Of the far side.
    learns : Out(1)
        It says that something has arrived of which that was not known.
    open : Out(1)
        Of some flits this is not known.
    asks : Out(vcs)
        Channels whose next flit asks to be sent.
    vc : In(range(vcs))
        The channel of the frame. `seq` is the number of its next flit; it `follows` if it asks and comes right after
        the one taken last. `take` takes it, `data` is there from the next cycle on until another is taken.
    overrun : Out(1)
        A flit came without credit.
    """

    def __init__(self, width, vcs, depth, slots, sequence=SEQUENCE):
        self.width, self.vcs, self.depth, self.slots, self.sequence = width, vcs, depth, slots, sequence
        super().__init__({
            "i": In(opaque(width, vcs)), "clear": In(1), "tick": In(1),
            "ack": In(data.StructLayout({"valid": 1, "status": status(vcs, slots, sequence)})),
            "learns": Out(1), "open": Out(1), "asks": Out(vcs),
            "vc": In(_number(vcs)), "take": In(1), "seq": Out(sequence), "follows": Out(1), "data": Out(width),
            "overrun": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        vcs, slots, place = self.vcs, self.slots, ceil_log2(self.slots)
        base, next = (Array(Signal(self.sequence, name=f"{name}{v}") for v in range(vcs)) for name in ("base", "next"))
        cursor = Array(Signal(place, name=f"cursor{v}") for v in range(vcs))    # slot to be sent next
        owed = [Signal(range(self.depth + 1), name=f"owed{v}") for v in range(vcs)]     # credits not given back
        used = Array(Signal(self.sequence, name=f"used{v}") for v in range(vcs))
        m.submodules.ram = ram = Ram(self.width, vcs * slots)
        comes = Signal(vcs)
        m.d.comb += [
            *(used[v].eq(next[v] - base[v]) for v in range(vcs)),
            *(comes[v].eq(self.i.valid[v] & (owed[v] != self.depth)) for v in range(vcs)),
            self.overrun.eq((self.i.valid & ~comes).any()),
            ram.write_en.eq(comes.any()), ram.write_data.eq(self.i.flit),
        ]

        # What the far side says: nothing that is older than what is known
        said, ahead, fresh, gone = self.ack.status, Signal(self.sequence), Signal(), Signal(slots)
        acked = said.vc if vcs > 1 else 0
        rest = Signal(self.sequence)        # flits that are not delivered
        m.d.comb += [
            ahead.eq(said.freed - base[acked]), rest.eq(next[acked] - said.freed),
            fresh.eq(self.ack.valid & (ahead <= used[acked])),
        ]
        opens, asks = (Array(Signal(slots, name=f"{name}{v}") for v in range(vcs)) for name in ("open", "asks"))
        learned, begin, judged = Signal(slots), Signal(place), Signal.like(said.vc)     # what was said a cycle ago
        wrapped, low, high, passed = (Signal(slots, name=name) for name in ("wrapped", "low", "high", "passed"))
        m.d.comb += [
            self.learns.eq((gone & opens[acked]).any()), self.open.eq(Cat(opens).any()),
            low.eq(learned & wrapped), high.eq(learned & ~wrapped),
        ]
        m.d.sync += learned.eq(gone & opens[acked] & said.map), begin.eq(said.freed), judged.eq(said.vc)
        for slot in range(slots):
            offset = Signal(place, name=f"offset{slot}")
            m.d.comb += [
                offset.eq(slot - said.freed), gone[slot].eq(fresh & (said.map[slot] | (offset >= rest))),
                wrapped[slot].eq(begin > slot if slot < slots - 1 else 0),      # the window begins behind it
                passed[slot].eq(Mux(wrapped[slot], low[slot + 1:].any(), high[slot + 1:].any() | low.any())),
            ]
        for v in range(vcs):
            ages = [Signal(slots, name=f"age{v}_{bit}") for bit in range(2)]
            new, sent, left, mine = (Signal(slots, name=f"{name}{v}") for name in ("new", "sent", "left", "gone"))
            ageing, late, once, lost = (Signal(slots, name=f"{name}{v}") for name in ("ageing", "late", "once", "lost"))
            is_acked, taken = acked == v, self.take & (self.vc == v)
            m.d.comb += [
                new.eq(comes[v] << next[v][:place]), sent.eq(taken << cursor[v]),
                mine.eq(Mux(is_acked, gone, 0)), left.eq(opens[v] & ~mine),
                ageing.eq(Mux(self.tick, left & ~asks[v], 0)), late.eq(ageing & ages[0] & ages[1]),
                lost.eq(Mux((judged == v) if vcs > 1 else 1, left & ~asks[v] & once & passed, 0)),
                self.asks[v].eq(asks[v].bit_select(cursor[v], 1)),
            ]
            m.d.sync += [
                opens[v].eq(left | new), asks[v].eq(asks[v] & left & ~sent | late | lost | new),
                once.eq(once & ~late & ~lost | new),
                ages[0].eq((ages[0] ^ ageing) & ~sent), ages[1].eq((ages[1] ^ ageing & ages[0]) & ~sent),
                next[v].eq(next[v] + comes[v]),
            ]
            with m.If(comes[v]):
                m.d.comb += ram.write_address.eq(Cat(next[v][:place], Const(v, ram.write_address.shape())))
            with m.If(fresh & is_acked):
                m.d.sync += base[v].eq(said.freed)
            with m.If(taken | ~self.asks[v] & asks[v].any()):
                m.d.sync += cursor[v].eq(cursor[v] + 1)

            gives = Signal(name=f"gives{v}")    # a credit, if the slots suffice for that, too
            m.d.comb += gives.eq((owed[v] != 0) & (used[v] + self.depth - owed[v] < slots))
            m.d.sync += owed[v].eq(owed[v] + comes[v] - gives), self.i.credit[v].eq(gives)
            with m.If(self.clear):
                m.d.sync += base[v].eq(0), next[v].eq(0), cursor[v].eq(0), opens[v].eq(0), asks[v].eq(0)

        chosen, expected = self.vc if vcs > 1 else 0, Signal(self.sequence)
        slot, into = Signal(place), Signal(place)       # how far into the window it is
        m.d.comb += [
            slot.eq(cursor[chosen]), into.eq(slot - base[chosen]), self.seq.eq(base[chosen] + into),
            self.follows.eq(self.asks.bit_select(chosen, 1) & (self.seq == expected)),
            ram.read_en.eq(self.take), ram.read_address.eq(Cat(slot, chosen)), self.data.eq(ram.read_data),
        ]
        with m.If(self.take):
            m.d.sync += expected.eq(self.seq + 1)
        return m


class Arrivals(Block):
    """Keeps the flits that came until their turn, and hands them out as there are credits.

    Parameters
    ----------
    width, vcs, depth, slots, sequence : int
        As of `Replay`; `depth` is that of the buffers flits are handed out to.

    Members
    -------
    clear : In(1)
        Forget all flits.
    flit : In(struct(valid, vc, seq, data))
        Of a frame.
    end : In(1)
        The frame ends; its flits count if it is `good`.
    o : Out(opaque(width, vcs))
    vc : In(range(vcs))
        The channel whose `status` is asked for.
    moved : Out(vcs)
        Channels of which a flit is handed out.
    """

    def __init__(self, width, vcs, depth, slots, sequence=SEQUENCE):
        self.width, self.vcs, self.depth, self.slots, self.sequence = width, vcs, depth, slots, sequence
        super().__init__({
            "clear": In(1),
            "flit": In(data.StructLayout({"valid": 1, "vc": _number(vcs), "seq": sequence, "data": width})),
            "end": In(1), "good": In(1),
            "o": Out(opaque(width, vcs)),
            "vc": In(_number(vcs)), "status": Out(status(vcs, slots, sequence)), "moved": Out(vcs),
        })

    def elaborate(self, platform):
        m = Module()
        vcs, slots, place = self.vcs, self.slots, ceil_log2(self.slots)
        freed = Array(Signal(self.sequence, name=f"freed{v}") for v in range(vcs))
        here = Array(Signal(slots, name=f"here{v}") for v in range(vcs))
        credits = [Signal(range(self.depth + 1), init=self.depth, name=f"credits{v}") for v in range(vcs)]
        m.submodules.ram = ram = Ram(self.width, vcs * slots)

        # A flit is written at once, unless it was here before, and counts when its frame turns out to be good.
        flit, keeps, coming, offset = self.flit, Signal(), Signal(slots), Signal(self.sequence)
        vc, held = flit.vc if vcs > 1 else 0, Signal(_number(vcs))
        slot = flit.seq[:place]
        m.d.comb += [
            offset.eq(flit.seq - freed[vc]),
            keeps.eq(flit.valid & (offset < slots) & ~here[vc].bit_select(slot, 1)),
            ram.write_en.eq(keeps), ram.write_address.eq(Cat(slot, vc)), ram.write_data.eq(flit.data),
        ]
        with m.If(flit.valid):
            m.d.sync += coming.eq(coming | keeps << slot), held.eq(flit.vc)
        with m.If(self.end | self.clear):
            m.d.sync += coming.eq(0)

        # The next flits of the channels take turns.
        offers, last, goes = Signal(vcs), Signal(_number(vcs)), Signal()
        m.d.comb += [
            *(offers[v].eq(here[v].bit_select(freed[v][:place], 1) & (credits[v] != 0)) for v in range(vcs)),
            goes.eq(offers.any()),
        ]
        turn = _round(m, offers, last, "turn")
        chosen = turn if vcs > 1 else 0
        m.d.comb += [
            ram.read_en.eq(goes), ram.read_address.eq(Cat(freed[chosen][:place], chosen)),
            self.o.flit.eq(ram.read_data), self.moved.eq(goes << turn),
        ]
        m.d.sync += self.o.valid.eq(self.moved)
        with m.If(goes):
            m.d.sync += last.eq(turn)
        for v in range(vcs):
            joins, leaves = Signal(slots, name=f"joins{v}"), Signal(slots, name=f"leaves{v}")
            m.d.comb += [
                joins.eq(Mux(self.end & self.good & (held == v), coming, 0)),
                leaves.eq(self.moved[v] << freed[v][:place]),
            ]
            m.d.sync += [
                here[v].eq(here[v] & ~leaves | joins), freed[v].eq(freed[v] + self.moved[v]),
                credits[v].eq(credits[v] + self.o.credit[v] - self.moved[v]),
            ]
            with m.If(self.clear):
                m.d.sync += here[v].eq(0), freed[v].eq(0)

        asked = self.vc if vcs > 1 else 0
        m.d.comb += [self.status.vc.eq(self.vc), self.status.freed.eq(freed[asked]), self.status.map.eq(here[asked])]
        return m


class Session(Block):
    """Agrees with the far side on where to begin, and notices when that was reset.

    A session has a number, another after each reset: a register that no reset clears counts them. A side is up when it
    knows the other's number and that the other knows its own. A `HELLO` of another number then means that the far side
    was reset, and all begins anew; but not within `settle` cycles, in which older ones may come late.

    Parameters
    ----------
    settle : int
        Longest life of a frame on the line, in cycles.

    Members
    -------
    hello : In(struct(valid, peer, heard, me))
    frame : In(1)
        A frame of this session came.
    own, peer : Out(SEQUENCE)
        Numbers of the sessions; `heard` says that of the peer is known.
    up : Out(1)
    restart : Out(1)
    """

    def __init__(self, settle):
        self.settle = settle
        super().__init__({
            "hello": In(data.StructLayout({"valid": 1, "peer": SEQUENCE, "heard": 1, "me": SEQUENCE})),
            "frame": In(1),
            "own": Out(SEQUENCE), "peer": Out(SEQUENCE), "heard": Out(1), "up": Out(1), "restart": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        own, age = Signal(SEQUENCE, reset_less=True), Signal(range(self.settle + 1))
        hello, knows, strange = self.hello, Signal(), Signal()
        m.d.comb += [
            self.own.eq(own), knows.eq(hello.heard & (hello.me == own)),
            strange.eq((hello.peer != self.peer) | hello.heard & ~knows),
            self.restart.eq(hello.valid & self.up & strange & (age == self.settle)),
        ]
        with m.If(~self.up):
            m.d.sync += age.eq(0)
        with m.Elif(age != self.settle):
            m.d.sync += age.eq(age + 1)
        with m.If(hello.valid & (~self.up | self.restart)):
            m.d.sync += self.peer.eq(hello.peer), self.heard.eq(1), self.up.eq(~self.up & knows)
        with m.If(self.frame & self.heard):
            m.d.sync += self.up.eq(1)
        with m.If(ResetSignal() | self.restart):
            m.d.sync += own.eq(own + 1)
        return m


class Framer(Block):
    """Makes frames: of flits that ask to be sent, or else of news; and the status goes with them.

    Parameters
    ----------
    width, vcs, slots : int
        As of `Replay`.
    burst : int
        Most flits of a frame.

    Members
    -------
    own, peer, heard, up : In
        As of `Session`.
    prompt : In(1)
        Say something, news or not.
    burst : In(range(burst + 1))
        Flits of a frame, at most; one at least.
    asks, seq, follows, data : In
    vc, take : Out
        As of `Replay`.
    news : In(vcs)
        Channels whose status should be told.
    status_vc : Out(range(vcs))
        The channel whose `status` goes with the frame; `told` when that is done.
    status : In(status(vcs, slots))
    o : Out(stream.Signature(8))
    """

    def __init__(self, width, vcs, slots, burst):
        self.width, self.vcs, self.slots, self.most = width, vcs, slots, burst
        super().__init__({
            "own": In(SEQUENCE), "peer": In(SEQUENCE), "heard": In(1), "up": In(1), "prompt": In(1),
            "burst": In(range(burst + 1)),
            "asks": In(vcs), "seq": In(SEQUENCE), "follows": In(1), "data": In(width),
            "vc": Out(_number(vcs)), "take": Out(1),
            "news": In(vcs), "status_vc": Out(_number(vcs)), "told": Out(1), "status": In(status(vcs, slots)),
            "o": Out(stream.Signature(8)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.enframer = enframer = Enframer()
        connect(m, enframer.o, flipped(self.o))
        content, last = enframer.i, enframer.i.payload.last
        passes, byte = Signal(), content.payload.byte
        m.d.comb += passes.eq(content.valid & content.ready)

        greeting, key = (seed(m, *numbers, name) for name, *numbers in (
            ("greeting", Const(0, 8), Const(0, 8)), ("key", self.own, self.peer)))
        vc, status_vc = Signal(_number(self.vcs)), Signal(_number(self.vcs))
        vc_turn = _round(m, self.asks, vc, "vc_turn")
        status_turn = _round(m, self.news, status_vc, "status_turn")
        begin, prompted, hello, full = Signal(32, reset_less=True), Signal(), Signal(), Signal()
        seq, told = Signal(SEQUENCE, reset_less=True), Signal(self.status.shape(), reset_less=True)
        size, count = -(-self.width // 8), Signal(range(self.most + 1))
        index = Signal(range(max(size, -(-self.slots // 8))))
        m.d.comb += enframer.seed.eq(begin), self.vc.eq(vc), self.status_vc.eq(status_vc)
        with m.If(self.prompt):
            m.d.sync += prompted.eq(1)

        def finish():
            """The status as it is now goes last."""
            m.d.comb += self.told.eq(~hello)
            m.d.sync += told.eq(self.status), index.eq(0)
            m.next = "FREED"

        with m.FSM():
            with m.State("IDLE"):
                with m.If(prompted | self.up & (self.asks.any() | self.news.any())):
                    m.d.sync += [
                        vc.eq(vc_turn), status_vc.eq(status_turn), full.eq(self.up & self.asks.any()),
                        hello.eq(~self.up), begin.eq(Mux(self.up, key, greeting)), prompted.eq(self.prompt),
                    ]
                    m.next = "CONTROL"
            with m.State("CONTROL"):
                m.d.comb += [
                    content.valid.eq(1), byte.eq(hello << HELLO | (hello & self.heard) << HEARD | vc << VC
                                                 | status_vc << STATUS_VC),
                    self.take.eq(passes & full & self.asks.bit_select(vc, 1)),
                ]
                with m.If(passes):
                    m.d.sync += full.eq(self.take), seq.eq(Mux(hello, self.own, self.seq)), count.eq(1), index.eq(0)
                    m.next = "SEQ"
            with m.State("SEQ"):
                m.d.comb += content.valid.eq(1), byte.eq(seq)
                with m.If(passes & full):
                    m.next = "FLIT"
                with m.Elif(passes):
                    finish()
            with m.State("FLIT"):
                m.d.comb += content.valid.eq(1), byte.eq(self.data.word_select(index, 8))
                with m.If(passes):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == size - 1):
                        with m.If(self.follows & (count < self.burst)):
                            m.d.comb += self.take.eq(1)
                            m.d.sync += index.eq(0), count.eq(count + 1)
                        with m.Else():
                            finish()
            with m.State("FREED"):
                m.d.comb += content.valid.eq(1), byte.eq(Mux(hello, self.peer, told.freed))
                with m.If(passes):
                    m.next = "MAP"
            with m.State("MAP"):
                m.d.comb += [
                    content.valid.eq(1), byte.eq(told.map.word_select(index, 8)),
                    last.eq(index == -(-self.slots // 8) - 1),
                ]
                with m.If(passes):
                    m.d.sync += index.eq(index + 1)
                    with m.If(last):
                        m.next = "IDLE"
        return m


class Parser(Block):
    """Takes frames apart. Latency 2 from the last byte of a flit, 1 from a frame's flag.

    Parameters
    ----------
    width, vcs, slots : int
        As of `Replay`.

    Members
    -------
    i : In(stream.Signature(8))
    own, peer : In(SEQUENCE)
        Numbers of the sessions.
    flit : Out(struct(valid, vc, seq, data))
        A flit of a frame that may yet turn out to be bad.
    end : Out(1)
        A frame ends.
    good : Out(1)
        It is one of this session; `full` if it has flits.
    status : Out(status(vcs, slots))
        Of a good frame.
    hello : Out(struct(valid, peer, heard, me))
    """

    def __init__(self, width, vcs, slots):
        self.width, self.vcs, self.slots = width, vcs, slots
        super().__init__({
            "i": In(stream.Signature(8)), "own": In(SEQUENCE), "peer": In(SEQUENCE),
            "flit": Out(data.StructLayout({"valid": 1, "vc": _number(vcs), "seq": SEQUENCE, "data": width})),
            "end": Out(1), "good": Out(1), "full": Out(1), "status": Out(status(vcs, slots)),
            "hello": Out(data.StructLayout({"valid": 1, "peer": SEQUENCE, "heard": 1, "me": SEQUENCE})),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.deframer = deframer = Deframer()
        connect(m, flipped(self.i), deframer.i)
        m.d.comb += deframer.seed.eq(seed(m, self.peer, self.own, "key"))

        size, bits = -(-self.width // 8), _number(self.vcs)
        control, seq, window = Signal(8), Signal(SEQUENCE), Signal(8 * size)    # the last bytes
        numbered, left, complete = Signal(), Signal(range(size)), Signal()
        m.d.sync += complete.eq(deframer.take & ~deframer.first & numbered & (left == 0))
        with m.If(deframer.take):
            m.d.sync += window.eq(Cat(window[8:], deframer.byte))
            with m.If(deframer.first):
                m.d.sync += control.eq(deframer.byte), numbered.eq(0), self.full.eq(0), left.eq(size - 1)
            with m.Elif(~numbered):
                m.d.sync += seq.eq(deframer.byte), numbered.eq(1)
            with m.Else():
                m.d.sync += left.eq(Mux(left == 0, size - 1, left - 1))
        with m.If(complete):
            m.d.sync += seq.eq(seq + 1), self.full.eq(1)

        check, map, freed = 8 * size - 32, 8 * -(-self.slots // 8), Signal(SEQUENCE)
        m.d.comb += [
            self.flit.valid.eq(complete), self.flit.vc.eq(control[VC:VC + bits]), self.flit.seq.eq(seq),
            self.flit.data.eq(window),
            freed.eq(window[check - map - 8:check - map]),
            self.end.eq(deframer.end), self.good.eq(deframer.good & ~control[HELLO]),
            self.status.vc.eq(control[STATUS_VC:STATUS_VC + bits]), self.status.freed.eq(freed),
            self.status.map.eq(window[check - map:check]),
            self.hello.valid.eq(deframer.good & control[HELLO]), self.hello.heard.eq(control[HEARD]),
            self.hello.peer.eq(seq), self.hello.me.eq(freed),
        ]
        return m


class Chiplink(Block):
    """One side of a link between two chips.

    A flit that finds the line idle comes out at the far side after the bytes of its frame and 4 cycles.

    Parameters
    ----------
    bits : int
        Data of a flit.
    vcs : int
        Virtual channels, 1 to 4.
    depth : int
        Slots of the network's buffers for each of them.
    slots : int
        Flits of a channel that may be under way: a power of two, and enough for a round trip.
    burst : int
        Most flits of a frame.
    timeout : int
        Longest `timeout`.
    settle : int
        Longest life of a frame on the line, in cycles.
    patience : int
        Cycles without any good news after which the link counts as dead.

    Members
    -------
    i : In(Link(bits, vcs))
    o : Out(Link(bits, vcs))
    rx : In(stream.Signature(8))
    tx : Out(stream.Signature(8))
    burst : In(range(burst + 1))
        Flits of a frame, at most: few on a bad line.
    timeout : In(range(timeout + 1))
        Cycles after which, at the latest, a flit that is not known to have arrived is sent again; three quarters of it
        are more than a round trip. What has not changed is told again four times as often.
    up : Out(1)
        Both sides agree on where to begin.
    session : Out(8)
        Number of this side's session.
    error : Out(2)
        What went wrong first (`golden.framing.Error`), since reset or `clear`.
    clear : In(1)
    """

    def __init__(self, bits, vcs, depth, slots=16, burst=8, timeout=4000, settle=1000, patience=100_000):
        limit, width = 1 << SEQUENCE - 2, Shape.cast(flit(bits)).width
        if not 1 <= vcs <= 4:
            raise ValueError(f"Chiplink: vcs must be 1 to 4, not {vcs!r}")
        if slots & (slots - 1) or not depth <= slots <= limit:
            raise ValueError(f"Chiplink: slots must be a power of two, {depth} to {limit}, not {slots!r}")
        if -(-width // 8) < 6 + -(-slots // 8):
            raise ValueError(f"Chiplink: a flit of {width} bits must be longer than what follows the flits of a frame, "
                             f"which is {5 + -(-slots // 8)} bytes with {slots} slots")
        self.bits, self.width = bits, width
        self.vcs, self.depth, self.slots, self.most = vcs, depth, slots, burst
        self.longest, self.settle, self.patience = timeout, settle, patience
        super().__init__({
            "i": In(Link(bits, vcs)), "o": Out(Link(bits, vcs)),
            "rx": In(stream.Signature(8)), "tx": Out(stream.Signature(8)),
            "burst": In(range(burst + 1)), "timeout": In(range(timeout + 1)),
            "up": Out(1), "session": Out(SEQUENCE), "error": Out(2), "clear": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        width, vcs, depth, slots = self.width, self.vcs, self.depth, self.slots
        m.submodules.replay = replay = Replay(width, vcs, depth, slots)
        m.submodules.arrivals = arrivals = Arrivals(width, vcs, depth, slots)
        m.submodules.framer = framer = Framer(width, vcs, slots, self.most)
        m.submodules.parser = parser = Parser(width, vcs, slots)
        m.submodules.session = session = Session(self.settle)
        for sender, receiver in (self.i, replay.i), (arrivals.o, self.o):
            m.d.comb += [receiver.flit.eq(sender.flit), receiver.valid.eq(sender.valid),
                         sender.credit.eq(receiver.credit)]
        connect(m, flipped(self.rx), parser.i)
        connect(m, framer.o, flipped(self.tx))

        tick, clock = Signal(), Signal(range(self.longest + 1))
        m.d.comb += tick.eq(clock + 1 >= (self.timeout >> 2))
        m.d.sync += clock.eq(Mux(tick, 0, clock + 1))

        good, news = Signal(), Signal(vcs)
        m.d.comb += [
            good.eq(parser.good & session.heard), self.up.eq(session.up), self.session.eq(session.own),
            session.hello.eq(parser.hello), session.frame.eq(good),
            *(getattr(block, number).eq(getattr(session, number))
              for block, numbers in ((framer, ("own", "peer", "heard", "up")), (parser, ("own", "peer")))
              for number in numbers),
            replay.clear.eq(session.restart), replay.tick.eq(tick),
            replay.ack.valid.eq(good), replay.ack.status.eq(parser.status),
            arrivals.clear.eq(session.restart), arrivals.flit.eq(parser.flit), arrivals.end.eq(parser.end),
            arrivals.good.eq(good),
            framer.burst.eq(self.burst), framer.prompt.eq(tick | parser.hello.valid),
            framer.asks.eq(replay.asks), framer.seq.eq(replay.seq), framer.follows.eq(replay.follows),
            framer.data.eq(replay.data), replay.vc.eq(framer.vc), replay.take.eq(framer.take),
            framer.news.eq(news), arrivals.vc.eq(framer.status_vc), framer.status.eq(arrivals.status),
        ]
        m.d.sync += news.eq(news & ~(framer.told << framer.status_vc) | arrivals.moved
                            | (good & parser.full) << parser.flit.vc)

        silent, alive, dead = Signal(range(self.patience + 1)), Signal(), Signal()
        m.d.comb += alive.eq(good & (replay.learns | ~replay.open)), dead.eq(silent == self.patience)
        m.d.sync += silent.eq(Mux(alive | self.clear, 0, Mux(dead, silent, silent + 1)))
        with m.If(self.clear):
            m.d.sync += self.error.eq(Error.NONE)
        with m.Elif(self.error == Error.NONE):
            m.d.sync += self.error.eq(Mux(replay.overrun, Error.OVERRUN, Mux(session.restart, Error.RESTART, Mux(
                dead, Error.DEAD, Error.NONE))))
        return m
