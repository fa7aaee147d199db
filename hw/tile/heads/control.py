# SPDX-License-Identifier: Apache-2.0
"""Instructions taken apart: commands to the KV cache, passes of attention, and what is to come of them."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from golden.isa import FORMS, Engine, Heads
from golden.paging import ARGUMENTS, HEADER, LENGTH, STAT, Opcode, Status, Table
from hw.emit import Block
from hw.fetch import request
from hw.instructions import instruction
from hw.kvcache.ports import COMMAND, completion
from hw.tile.heads.ports import WORDS, Error, Kind, order, pass_

__all__ = ["PASSES", "Control", "rows"]

PASSES = 8      # at most under way, and one or two more: fewer than streams of a sequence may be
STATED = sum(STAT[Table.SEQUENCE].values())
LEFT_OUT = Opcode.LOOKUP, Opcode.ATTACH, Opcode.STREAM, Opcode.WRITE    # what `COMMAND` does not give
HOSTED = Opcode.SWAP_OUT, Opcode.SWAP_IN                                # what it gives if there is host memory


def rows(kv):
    """A read of a token's new keys, then values."""
    return request(kv.kv_heads * kv.head_dim // kv.lanes, 2)


class Control(Block):
    """Carries instructions out, as `golden.tile` says, one command of the KV cache after the other.

    Passes are announced as soon as their size is known, before the cache is asked for their streams: queries come
    meanwhile. If it refuses, the pass gets streams without beats, and its results are muted; so all keeps in step.

    Parameters
    ----------
    kv : golden.config.KvCache
    group : int
        Queries at a time.

    Members
    -------
    i : In(stream.Signature(instruction(WORDS)))
    commands : Out(stream.Signature(128)), completions : In(stream.Signature(completion()))
        Of the KV cache.
    begins : In(1)
        A `WRITE` has not been refused.
    hosted : In(1)
        There is host memory.
    request : Out(stream.Signature(rows(kv)))
        A token's new keys and values.
    answered : In(1)
        All of a request has come.
    passes : Out(stream.Signature(pass_(kv, group)))
    orders : Out(stream.Signature(order(group)))
    ended : In(1)
        A pass is done.
    cut : Out(1), cut_taken : In(1)
        A stream that ends before its first beat.
    mute : Out(1)
        The pass that is under way has no results.
    busy : Out(1)
        A pass is under way.
    """

    def __init__(self, kv, group):
        self.kv, self.group = kv, group
        super().__init__({
            "i": In(stream.Signature(instruction(WORDS))),
            "commands": Out(stream.Signature(COMMAND)), "completions": In(stream.Signature(completion())),
            "begins": In(1), "hosted": In(1), "request": Out(stream.Signature(rows(kv))), "answered": In(1),
            "passes": Out(stream.Signature(pass_(kv, group))), "orders": Out(stream.Signature(order(group))),
            "ended": In(1), "cut": Out(1), "cut_taken": In(1), "mute": Out(1), "busy": Out(1)})

    def elaborate(self, platform):
        m, kv, group = Module(), self.kv, self.group
        opcode, words = Signal(self.i.payload.opcode.shape()), Signal(self.i.payload.words.shape())
        attend, extend, command = (_fields(words, each) for each in Heads)
        error, detail, reply = Signal(Error), Signal(8), Signal(64)
        given = self.completions.payload
        length = data.View(data.StructLayout(STAT[Table.SEQUENCE]), given.payload[:STATED]).length
        asked, under_way = Signal(), Signal(range(2 * PASSES))
        launched = self.passes.valid & self.passes.ready
        m.d.sync += under_way.eq(under_way + launched - self.ended)
        m.d.comb += self.busy.eq(under_way != 0)
        due = self._rows(m, attend)

        # The pass in hand
        end, left, tokens = Signal(LENGTH), Signal(16), Signal(range(group + 1))        # end: of the first token
        begin, seen, lag = Signal(LENGTH), Signal(LENGTH), Signal(range(group + 1))
        together, before, steps = Signal.like(tokens), Signal(signed(LENGTH + 1)), Signal.like(tokens)
        first, head = Signal(), Signal(range(max(kv.kv_heads, 2)))
        with m.Switch(attend["group"]):
            for size in range(1, group + 1):
                with m.Case(size):
                    m.d.comb += together.eq(group // size)
        m.d.comb += before.eq(end - attend["window"])
        with m.If(steps != 0):      # addresses go on to the next pass
            m.d.sync += [
                steps.eq(steps - 1), attend["q"].eq(attend["q"] + attend["pitch"]),
                attend["result"].eq(attend["result"] + attend["result_pitch"])]
        passed, ordered = self.passes.payload, self.orders.payload
        m.d.comb += [
            passed.tokens.eq(tokens), passed.group.eq(attend["group"]), passed.end.eq(seen), passed.lag.eq(lag),
            passed.address.eq(attend["q"]), passed.pitch.eq(attend["pitch"]),
        ]

        asks_length = _word(m, Opcode.STAT, table=Table.SEQUENCE, index=attend["sid"])      # or of `EXTEND`

        def call(word):
            """Give the KV cache a command; whether it is completed."""
            m.d.comb += [self.commands.valid.eq(~asked), self.commands.payload.eq(word), self.completions.ready.eq(1)]
            with m.If(self.commands.valid & self.commands.ready):
                m.d.sync += asked.eq(1)
            with m.If(self.completions.valid):
                m.d.sync += asked.eq(0)
            return self.completions.valid

        def refused(then):
            """If that was refused, go there."""
            with m.If(given.status != Status.OK):
                m.d.sync += error.eq(Error.REFUSED), detail.eq(given.status)
                m.next = then

        def fail():
            m.d.sync += error.eq(Error.ARGUMENT)
            m.next = "END"

        def put(kind, then):
            m.d.comb += self.orders.valid.eq(1), ordered.kind.eq(kind)
            with m.If(self.orders.ready):
                m.next = then
            return self.orders.ready

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq((due == 0) & (steps == 0))
                with m.If(self.i.valid & self.i.ready):
                    m.d.sync += [opcode.eq(self.i.payload.opcode), words.eq(self.i.payload.words),
                                 error.eq(Error.NONE), detail.eq(0)]
                    with m.Switch(self.i.payload.opcode):
                        for each in Heads:
                            with m.Case(each):
                                m.next = each.name
                        with m.Default():
                            fail()

            with m.State("COMMAND"):
                asks = words[0][:8]
                with m.If(~_among(asks, set(ARGUMENTS) - set(LEFT_OUT)) | _among(asks, HOSTED) & ~self.hosted):
                    fail()
                with m.Elif(under_way == 0):        # then no stream is, either
                    m.next = "CALL"
            with m.State("CALL"):
                m.d.sync += reply.eq(self.completions.payload)
                with m.If(call(words.as_value()[:COMMAND])):
                    m.next = "WORD"

            with m.State("EXTEND"):
                with m.If(_beyond(words, Heads.EXTEND)):
                    fail()
                with m.Else(), m.If(call(_word(m, Opcode.APPEND, sid=extend["sid"], tokens=extend["tokens"]))):
                    m.next = "LENGTH"
                    refused("END")
            with m.State("LENGTH"):
                m.d.sync += reply.eq(length - extend["tokens"])
                with m.If(call(asks_length)):
                    m.next = "WORD"
                    refused("END")
            with m.State("WORD"):
                m.d.comb += [
                    ordered.address.eq(Mux(opcode == Heads.EXTEND, extend["result"], command["result"])),
                    ordered.what.word.data.eq(reply),
                    ordered.what.word.count.eq(Mux(opcode == Heads.EXTEND, 4, 8)),
                ]
                put(Kind.WORD, "END")

            with m.State("ATTEND"):
                m.d.sync += end.eq(length - attend["rows"] + 1), left.eq(attend["rows"]), first.eq(1)
                with m.If(_beyond(words, Heads.ATTEND) | (attend["rows"] == 0) | (together == 0)):
                    fail()
                with m.Else(), m.If(call(asks_length)):
                    m.next = "PLAN"
                    with m.If(length < attend["rows"]):
                        fail()
                    refused("END")
            with m.State("PLAN"):
                whole, short = Signal(), Signal()       # all tokens so far are seen; they are less than a window
                m.d.comb += whole.eq(attend["window"] == 0), short.eq(before < 0)
                m.d.sync += [
                    begin.eq(Mux(whole | short, 0, before)), seen.eq(Mux(whole | short, end, attend["window"])),
                    lag.eq(Mux(whole | (before < -group), group, Mux(short, -before, 0))),
                    tokens.eq(Mux(left < together, left, together)),
                ]
                m.next = "PASS"
            with m.State("PASS"):
                m.d.comb += self.passes.valid.eq(steps == 0)
                with m.If(launched):
                    m.next = "ORDER"
            with m.State("ORDER"):
                m.d.comb += [
                    ordered.address.eq(attend["result"]), ordered.what.rows.pitch.eq(attend["result_pitch"]),
                    ordered.what.rows.tokens.eq(tokens), ordered.what.rows.group.eq(attend["group"]),
                ]
                with m.If(put(Kind.PASS, "STREAM")):
                    m.d.sync += steps.eq(tokens), first.eq(0)
                    with m.If(first):
                        m.next = "WRITE"
            with m.State("WRITE"):
                with m.If(call(_word(m, Opcode.WRITE, sid=attend["sid"], layer=attend["layer"], first=end - 1,
                                     count=attend["rows"]))):
                    m.next = "STREAM"
                    refused("REFUSED")
            with m.State("STREAM"):
                with m.If(call(_word(m, Opcode.STREAM, sid=attend["sid"], layer=attend["layer"], first=begin,
                                     heads=(1 << kv.kv_heads) - 1, count=seen + tokens - 1))):
                    m.d.sync += left.eq(left - tokens), end.eq(end + tokens)
                    m.next = "PLAN"
                    with m.If(left == tokens):
                        m.next = "END"
                    refused("REFUSED")
            with m.State("REFUSED"):
                with m.If(under_way == 1):
                    m.next = "CUT"
            with m.State("CUT"):
                m.d.comb += self.cut.eq(1), self.mute.eq(1)
                with m.If(self.cut_taken):
                    m.d.sync += head.eq(Mux(head == kv.kv_heads - 1, 0, head + 1))
                    with m.If(head == kv.kv_heads - 1):
                        m.next = "MUTE"
            with m.State("MUTE"):
                m.d.comb += self.mute.eq(1)
                with m.If((under_way == 0) & (due == 0)):
                    m.next = "END"

            with m.State("END"):
                m.d.comb += ordered.what.end.error.eq(error), ordered.what.end.detail.eq(detail)
                put(Kind.END, "IDLE")
        return m

    def _rows(self, m, attend):
        """Ask for new keys and values, token after token; how many have not come."""
        asked, due, at = Signal(16), Signal(16), Signal(32)     # to be asked for
        keys, given = self.request.payload, self.request.valid & self.request.ready
        m.d.comb += [
            self.request.valid.eq(asked != 0), keys.address.eq(at), keys.stride.eq(attend["v"] - attend["k"]),
            keys.beats.eq(self.kv.kv_heads * self.kv.head_dim // self.kv.lanes), keys.rows.eq(2),
        ]
        m.d.sync += asked.eq(asked - given), due.eq(due - self.answered)
        with m.If(given):
            m.d.sync += at.eq(at + attend["pitch"])
        with m.If(self.begins):
            m.d.sync += asked.eq(attend["rows"]), due.eq(attend["rows"]), at.eq(attend["k"])
        return due


def _word(m, opcode, **arguments):
    """A command's word."""
    word = Signal(data.StructLayout(HEADER | ARGUMENTS[opcode]), name=opcode.name.lower())
    m.d.comb += word.opcode.eq(opcode), *(word[name].eq(value) for name, value in arguments.items())
    return word.as_value()


def _fields(words, opcode):
    """Fields of an instruction by name."""
    found = {}
    for word, form in zip(words, FORMS[Engine.HEADS][opcode], strict=False):
        at = 0
        for name, bits in form.items():
            found[name] = word[at:at + bits]
            at += bits
    return found


def _beyond(words, opcode):
    """Whether a register has made a number larger than its field."""
    forms = zip(words, FORMS[Engine.HEADS][opcode], strict=False)
    return Cat(word[sum(form.values()):] for word, form in forms).any()


def _among(value, members):
    return Cat(value == member for member in members).any()
