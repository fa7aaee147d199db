# SPDX-License-Identifier: Apache-2.0
"""Memory on the chip that all engines share, in banks."""

from functools import reduce
from operator import or_

from amaranth.hdl import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from hw.emit import Block
from hw.fetch import ADDRESS, Steps, request, response, write
from hw.ram import Ram
from hw.stream import Queue

__all__ = ["Scratchpad"]

REQUESTS = 4    # of a reader, taken before any is answered
ROOM = 4        # beats of a reader under way or waiting: as many as one takes cycles, so that one comes in each


def place(word, banks, depth):
    """Where an address is: a byte of a word, a word of a bank."""
    parts = {"byte": ceil_log2(word), "bank": ceil_log2(banks), "row": ceil_log2(depth)}
    return data.StructLayout({**parts, "beyond": ADDRESS - sum(parts.values())})


def read(banks, depth):
    """A reader wants a word."""
    return data.StructLayout({"valid": 1, "bank": range(banks), "row": range(depth)})


def change(word, banks, depth):
    """A writer wants to change the bytes of a word whose `mask` is set."""
    return data.StructLayout({**read(banks, depth).members, "data": 8 * word, "mask": word})


class Order(Block):
    """Who comes first, when several want the same bank: who has not won for longest, in whatever bank.

    So nobody loses more often in a row than there are others, and one who was too slow for another, and won, lets it
    past in the next bank.

    Parameters
    ----------
    count : int

    Members
    -------
    won : In(count)
        Who had a bank that others wanted as well: they come last from now on.
    before : Out(ArrayLayout(count, count))
        Of each, who comes before.
    """

    def __init__(self, count):
        self.count = count
        super().__init__({"won": In(count), "before": Out(data.ArrayLayout(count, count))})

    def elaborate(self, platform):
        m = Module()
        for b in range(self.count):
            for a in range(b):
                swapped = Signal(name=f"swapped{a}_{b}")
                m.d.comb += self.before[a][b].eq(swapped), self.before[b][a].eq(~swapped)
                with m.If(self.won[a] != self.won[b]):
                    m.d.sync += swapped.eq(self.won[a])
        return m


def turns(count):
    """Who may have a bank, and who `won` it from others, as `before` says."""
    return wiring.Signature({"before": In(data.ArrayLayout(count, count)), "grant": Out(count), "won": Out(count)})


class Bank(Block):
    """Reads one word and writes one in a cycle.

    Parameters
    ----------
    word, banks, depth : int
        Bytes of a word, banks of the scratchpad, words of each.
    readers, writers : int

    Members
    -------
    reads : In(ArrayLayout(read(banks, depth), readers)), reading : Out(turns(readers))
    changes : In(ArrayLayout(change(word, banks, depth), writers)), writing : Out(turns(writers))
    data : Out(8 * word)
        The word that was read, in the cycle after.
    """

    def __init__(self, word, banks, depth, readers, writers):
        self.word, self.depth = word, depth
        super().__init__({
            "reads": In(data.ArrayLayout(read(banks, depth), readers)), "reading": Out(turns(readers)),
            "changes": In(data.ArrayLayout(change(word, banks, depth), writers)), "writing": Out(turns(writers)),
            "data": Out(8 * word),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = Ram(8 * self.word, self.depth, 8)
        asked = self._first(m, self.reads, self.reading, "asked")
        given = self._first(m, self.changes, self.writing, "given")
        m.d.comb += [
            words.read_en.eq(asked.valid), words.read_address.eq(asked.row), self.data.eq(words.read_data),
            words.write_en.eq(Mux(given.valid, given.mask, 0)), words.write_address.eq(given.row),
            words.write_data.eq(given.data),
        ]
        return m

    def _first(self, m, wanted, turns, name):
        """What whose turn it is wants."""
        chosen, asks = Signal(wanted.shape().elem_shape, name=name), Signal(len(turns.grant), name=f"{name}_asks")
        m.d.comb += [
            asks.eq(Cat(one.valid for one in wanted)),
            turns.grant.eq(Cat(asks[n] & ~(asks & turns.before[n]).any() for n in range(len(asks)))),
            turns.won.eq(Mux((asks & ~turns.grant).any(), turns.grant, 0)),
            Value.cast(chosen).eq(reduce(or_, (Mux(turns.grant[n], Value.cast(one), 0)
                                               for n, one in enumerate(wanted)))),
        ]
        return chosen


class Reader(Block):
    """Asks the banks for the words of requests, and cuts beats out of them. A word is read once for all beats of a row.

    Parameters
    ----------
    word, banks, depth : int
        As of `Bank`.
    size, unit : int
        Bytes of a beat; what addresses are multiples of, at most as many. Behind the end of its word a beat may hold
        anything.
    beats, rows : int
        Most of a request.

    Members
    -------
    i : In(stream.Signature(request(beats, rows))), o : Out(stream.Signature(response(8 * size)))
    read : Out(read(banks, depth)), reading : In(1)
        Whether it is its turn.
    words : In(ArrayLayout(8 * word, banks))
        What the banks read.
    fault : Out(1)
        A beat beyond the banks, or not at a multiple of `unit`, is asked for in this cycle.
    """

    def __init__(self, word, banks, depth, size, unit, beats, rows):
        self.word, self.banks, self.depth, self.size, self.unit = word, banks, depth, size, unit
        self.beats, self.rows = beats, rows
        super().__init__({
            "i": In(stream.Signature(request(beats, rows))), "o": Out(stream.Signature(response(8 * size))),
            "read": Out(read(banks, depth)), "reading": In(1),
            "words": In(data.ArrayLayout(8 * word, banks)),
            "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.requests = requests = Queue(request(self.beats, self.rows), REQUESTS)
        m.submodules.steps = steps = Steps(self.size, self.beats, self.rows)
        m.submodules.queue = queue = Queue(response(8 * self.size), ROOM)
        connect(m, flipped(self.i), requests.i)
        connect(m, requests.o, steps.i)
        connect(m, queue.o, flipped(self.o))

        # A beat is asked for when there is room to keep it.
        step = steps.o.payload
        at = data.View(place(self.word, self.banks, self.depth), step.address)
        part = at.byte[ceil_log2(self.unit):]       # of the word
        room, may, fresh, passes = Signal(range(ROOM + 1), init=ROOM), Signal(), Signal(), Signal()
        m.d.comb += [
            may.eq(steps.o.valid & (room != 0)),
            fresh.eq(step.first | ~at.byte[ceil_log2(self.size):].any()),
            self.read.valid.eq(may & fresh), self.read.bank.eq(at.bank), self.read.row.eq(at.row),
            passes.eq(may & (self.reading | ~fresh)),
            steps.o.ready.eq(passes),
            self.fault.eq(passes & (at.beyond.any() | step.address[:ceil_log2(self.unit)].any())),
        ]
        m.d.sync += room.eq(room - passes + (queue.o.valid & queue.o.ready))

        # Its word comes; when several beats are in one, it stays until the last of them has left.
        parts = {"bank": len(at.bank), "fresh": 1, "part": len(part), "last": 1}
        valid, found = Signal(), Signal(data.StructLayout(parts), reset_less=True)
        m.d.sync += valid.eq(passes), Value.cast(found).eq(Cat(at.bank, fresh, part, step.last))
        beat, last = self.words[found.bank], found.last
        if self.unit < self.word:
            word, kept, came, ends = Signal(8 * self.word, reset_less=True), Signal.like(part), Signal(), Signal()
            m.d.sync += came.eq(valid), ends.eq(last), kept.eq(found.part)
            with m.If(found.fresh):
                m.d.sync += word.eq(beat)
            parts = Array(word[8 * begin:][:8 * self.size] for begin in range(0, self.word, self.unit))
            valid, beat, last = came, parts[kept], ends
        m.d.comb += queue.i.valid.eq(valid), queue.i.payload.data.eq(beat), queue.i.payload.last.eq(last)
        return m


class Writer(Block):
    """Puts what is written into its place in a word, and waits for the turn.

    Parameters
    ----------
    word, banks, depth : int
        As of `Bank`.
    size, unit : int
        Most bytes of a write; what their addresses are multiples of.

    Members
    -------
    i : In(stream.Signature(write(size)))
    change : Out(change(word, banks, depth)), writing : In(1)
        Whether it is its turn.
    fault : Out(1)
        A write that there cannot be is dropped in this cycle.
    """

    def __init__(self, word, banks, depth, size, unit):
        self.word, self.banks, self.depth, self.size, self.unit = word, banks, depth, size, unit
        super().__init__({
            "i": In(stream.Signature(write(size))),
            "change": Out(change(word, banks, depth)), "writing": In(1),
            "fault": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        given, span = self.i.payload, 1 << ceil_log2(max(self.size, self.unit))
        at = data.View(place(self.word, self.banks, self.depth), given.address)
        end, sound, begun = Signal(range(2 * self.word + 1)), Signal(), Signal(self.word)
        m.d.comb += [
            end.eq(at.byte + given.count),
            begun.eq(Cat(*(at.byte <= n for n in range(self.word - 1)), 1)),
            sound.eq(~at.beyond.any() & (end <= self.word) & ~given.address[:ceil_log2(self.unit)].any()),
            self.fault.eq(self.i.valid & self.i.ready & ~sound),
        ]

        # Turned within as many bytes as there may be, they are in place in every part of the word.
        turned = Signal(8 * span)
        m.d.comb += turned.eq(given.data)
        for bit in range(ceil_log2(self.unit), ceil_log2(span)):
            before, turned = turned, Signal(8 * span, name=f"turned{bit}")
            m.d.comb += turned.eq(Mux(at.byte[bit], before.rotate_left(8 << bit), before))

        waits, content = Signal(), Signal(8 * span, reset_less=True)
        bank, row, mask = Signal.like(at.bank), Signal.like(at.row), Signal(self.word)
        with m.If(self.i.ready):
            m.d.sync += [
                waits.eq(self.i.valid & sound), bank.eq(at.bank), row.eq(at.row), content.eq(turned),
                mask.eq(begun & Cat(end > n for n in range(self.word))),
            ]
        m.d.comb += [
            self.i.ready.eq(~waits | self.writing),
            self.change.valid.eq(waits), self.change.bank.eq(bank), self.change.row.eq(row),
            self.change.data.eq(content.replicate(self.word // span)), self.change.mask.eq(mask),
        ]
        return m


class Scratchpad(Block):
    """Serves the requests of its readers and takes what its writers give.

    Words are spread over the banks in turn, and each bank reads one and writes one in a cycle, whatever the others do.
    So a reader gets a beat a cycle while nobody else wants its banks, and a writer gives one; of those who want the
    same bank, who has waited longest comes first. A reader whose beats are narrower than a word takes a bank once for
    all beats of a row that are in it. The first beat is there 5 cycles after its request, 4 if it is always a word.

    A read sees what was written if its request comes as many cycles later as there are writers, or more: a write may
    have to wait for one of each of the others, and a request takes two cycles to the banks.

    Parameters
    ----------
    size, banks, word : int
        Bytes, banks, and bytes of a word: powers of two.
    readers : tuple of (int, int, int, int)
        Of each reader: bytes of a beat, a power of two and at most a word; what its addresses and strides are
        multiples of, a power of two and at most a beat; most beats and rows of a request. What a beat has behind the
        end of the word in which it begins may be anything.
    writers : tuple of (int, int)
        Of each writer: most bytes of a write, and what its addresses are multiples of, a power of two; the greater
        it is, the fewer gates turn bytes into their places. A write does not cross a word.

    Members
    -------
    request0 ... : In(stream.Signature(request(beats, rows)))
        Of one beat and one row at least.
    response0 ... : Out(stream.Signature(response(8 * bytes)))
    write0 ... : In(stream.Signature(write(bytes)))
    fault : Out(len(readers) + len(writers))
        Of each reader, then of each writer: an address was beyond the scratchpad or not such a multiple, or a write
        crossed a word. A write like that is dropped, a read gives some other bytes. Stays until `clear`.
    clear : In(1)
    """

    def __init__(self, size, banks, word, readers, writers):
        for name, value in {"size": size, "banks": banks, "word": word}.items():
            if value < 1 or value & value - 1:
                raise ValueError(f"Scratchpad: {name} must be a power of two, not {value!r}")
        self.depth, least = size // (banks * word), 2 * banks * word
        if size < least:
            raise ValueError(f"Scratchpad: size must be {least} or more, two words of each bank, not {size!r}")
        if not readers or not writers:
            raise ValueError("Scratchpad: there must be a reader and a writer")
        for n, (width, unit, beats, rows) in enumerate(readers):
            if not 1 <= width <= word or width & width - 1:
                raise ValueError(f"Scratchpad: beat of reader {n} must be a power of two up to {word}, not {width!r}")
            if not 1 <= unit <= width or unit & unit - 1:
                raise ValueError(f"Scratchpad: unit of reader {n} must be a power of two up to {width}, not {unit!r}")
            if beats < 1 or rows < 1:
                raise ValueError(f"Scratchpad: reader {n} must have 1 beat and row or more, not {beats!r}, {rows!r}")
        for n, (width, unit) in enumerate(writers):
            if not 1 <= width <= word:
                raise ValueError(f"Scratchpad: writer {n} must have 1 to {word} bytes, not {width!r}")
            if not 1 <= unit <= word or unit & unit - 1:
                raise ValueError(f"Scratchpad: unit of writer {n} must be a power of two up to {word}, not {unit!r}")
        self.size, self.banks, self.word, self.readers, self.writers = size, banks, word, readers, writers
        members = {}
        for n, (width, _, beats, rows) in enumerate(readers):
            members |= {f"request{n}": In(stream.Signature(request(beats, rows))),
                        f"response{n}": Out(stream.Signature(response(8 * width)))}
        members |= {f"write{n}": In(stream.Signature(write(width))) for n, (width, _) in enumerate(writers)}
        super().__init__(members | {"fault": Out(len(readers) + len(writers)), "clear": In(1)})

    def elaborate(self, platform):
        m = Module()
        shape = self.word, self.banks, self.depth
        banks = [Bank(*shape, len(self.readers), len(self.writers)) for _ in range(self.banks)]
        readers = [Reader(*shape, *each) for each in self.readers]
        writers = [Writer(*shape, *each) for each in self.writers]
        for name, blocks in {"bank": banks, "reader": readers, "writer": writers}.items():
            for n, block in enumerate(blocks):
                m.submodules[f"{name}{n}"] = block

        for n, reader in enumerate(readers):
            connect(m, flipped(getattr(self, f"request{n}")), reader.i)
            connect(m, reader.o, flipped(getattr(self, f"response{n}")))
            m.d.comb += reader.words.eq(Cat(bank.data for bank in banks))
        for n, writer in enumerate(writers):
            connect(m, flipped(getattr(self, f"write{n}")), writer.i)
        self._order(m, "reading", [(each.read, each.reading) for each in readers],
                    [(bank.reads, bank.reading) for bank in banks])
        self._order(m, "writing", [(each.change, each.writing) for each in writers],
                    [(bank.changes, bank.writing) for bank in banks])

        m.d.sync += self.fault.eq(Mux(self.clear, 0, self.fault) | Cat(each.fault for each in (*readers, *writers)))
        return m

    def _order(self, m, name, parties, banks):
        """Pass what the parties want on to its banks, in one order for all banks, and say whose turn it is."""
        m.submodules[name] = order = Order(len(parties))
        m.d.comb += order.won.eq(reduce(or_, (turns.won for _, turns in banks)))
        for number, (wanted, turns) in enumerate(banks):
            m.d.comb += turns.before.eq(order.before)
            for n, (asks, _) in enumerate(parties):
                m.d.comb += wanted[n].eq(asks), wanted[n].valid.eq(asks.valid & (asks.bank == number))
        for n, (_, granted) in enumerate(parties):
            m.d.comb += granted.eq(Cat(turns.grant[n] for _, turns in banks).any())
