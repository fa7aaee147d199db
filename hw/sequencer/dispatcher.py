# SPDX-License-Identifier: Apache-2.0
"""What goes through a program: first to check it, then to run it."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from golden.isa import FORMS, HEAD, LOOPS, REGISTERS, SELECT, SELECTED, WAITS, WORDS, Control, Engine, Error
from hw.arith.crc import crc
from hw.emit import Block
from hw.ram import Ram

__all__ = ["ENGINES", "HEADER", "Dispatcher"]

ENGINES = [engine for engine in Engine if FORMS[engine] and engine is not Engine.CONTROL]
HEADER = data.StructLayout({"engine": 3, "opcode": 5, "waits": WAITS * Engine.CONTROL, "zeros": 3})
END = Engine.CONTROL | Control.END << 3


def kinds(value):
    """Patterns of opcode and engine by what follows from the form of an instruction."""
    found = {}
    for engine, forms in FORMS.items():
        values = {opcode: value(form) for opcode, form in forms.items()}
        alike = len(set(values.values())) == 1      # an opcode that there is not makes no difference then
        for opcode, each in [*values.items()][:1 if alike else None]:
            found.setdefault(each, []).append(("-----" if alike else f"{opcode:05b}") + f"{engine:03b}")
    return found


def selectors(form):
    """Bits of words 1 and 2 that may be set: of the registers of body words that are one field."""
    return sum((1 << SELECT) - 1 << (SELECT * n if n < SELECTED else 32 + SELECT * (n - SELECTED))
               for n, word in enumerate(form) if len(word) == 1)


class Dispatcher(Block):
    """Checks a program and runs it, a word a cycle.

    Words pass the same stages both times: asked for, read, added to a register, judged. The check takes `WORDS` cycles
    an instruction. Then an instruction takes `HEAD` cycles and one for each body word; `NEXT` takes 6 and `SWAP` 9.

    The counts of loops are kept behind the registers, in the same memory.

    Parameters
    ----------
    instructions : int
        Room.

    Members
    -------
    start, last : In
        Begin, at rest; and which instruction is the last.
    preset : In(struct(en, register, value))
        What a register is to be; not while a program runs.
    halt : In(1)
        Come to rest.
    running, ended : Out(1)
        Past the check; all that there was is dispatched.
    read_en, pc, n : Out, word : In(32)
        As of `Program`.
    room : In
        By engine: there is a place for an instruction.
    begin : Out(1)
        An instruction for an engine is on its way: `header` and `source`, its pc, are its own from the next cycle on
        until its last word.
    write : Out(struct(en, index, data))
        Its body words, the first of them four cycles after `begin`, a word a cycle.
    fault : Out(struct(valid, error, pc))
        The program cannot go on.
    """

    def __init__(self, instructions):
        self.instructions = instructions
        pc = range(instructions)
        super().__init__({
            "start": In(1), "last": In(pc), "halt": In(1), "running": Out(1), "ended": Out(1),
            "preset": In(data.StructLayout({"en": 1, "register": SELECT, "value": 32})),
            "read_en": Out(1), "pc": Out(pc), "n": Out(4), "word": In(32),
            "room": In(len(ENGINES)),
            "begin": Out(1), "header": Out(HEADER), "source": Out(pc),
            "write": Out(data.StructLayout({"en": 1, "index": 4, "data": 32})),
            "fault": Out(data.StructLayout({"valid": 1, "error": 4, "pc": pc})),
        })

    def elaborate(self, platform):
        m = Module()
        self.checks, self.fetching = Signal(), Signal()

        # The stages: what stands in the memory's output, in `word`, and in `sum`
        self.valid = [Signal(name=f"{stage}_valid") for stage in ("read", "word", "sum")]
        self.place = [Signal(4, name=f"{stage}_place", reset_less=True) for stage in ("read", "word", "sum")]
        m.d.sync += [
            Cat(self.valid).eq(Mux(self.halt, 0, Cat(self.read_en, *self.valid[:-1]))),
            Cat(self.place).eq(Cat(self.n, *self.place[:-1])),
        ]
        self.sum, self.zero = Signal(32, reset_less=True), Signal()
        self.depth = Signal(range(LOOPS + 1))
        m.d.comb += self.zero.eq(self.sum == 0)

        resume, target = self._execute(m)
        self._fetch(m, resume, target)
        self._judge(m)
        with m.If(self.start):
            m.d.sync += self.checks.eq(1), self.fetching.eq(1), self.pc.eq(0), self.n.eq(0), self.depth.eq(0)
        with m.If(self.halt):
            m.d.sync += [self.checks.eq(0), self.running.eq(0), self.ended.eq(0), self.fetching.eq(0)]
        return m

    def _fetch(self, m, resume, target):
        """Ask for one word after the other; `CONTROL` says where to `resume`."""
        begins, now, last = Signal(), Signal(HEADER), Signal(4)     # an instruction whose header is in `word`
        m.d.comb += [
            begins.eq(self.valid[1] & (self.place[1] == 0)),
            now.eq(Mux(begins, self.word, self.header)),
        ]
        with m.If(begins):
            m.d.sync += self.header.eq(self.word), self.source.eq(self.pc)
        with m.Switch(Cat(self.header.engine, self.header.opcode)):
            for number, patterns in kinds(lambda form: HEAD + len(form) - 1).items():
                with m.Case(*patterns):
                    m.d.comb += last.eq(number)

        # At word 2 the header is known.
        control, bare, known = Signal(), Signal(), self.n == HEAD - 1
        m.d.comb += [
            control.eq(now.engine == Engine.CONTROL),
            bare.eq(control & ((now.opcode == Control.NEXT) | (now.opcode == Control.END))),
            self.read_en.eq(self.fetching & (self.checks | ~known | Mux(
                control, ~bare, Array(self.room)[now.engine]))),
            self.begin.eq(self.read_en & ~self.checks & known & ~control),
        ]
        with m.If(self.read_en):
            m.d.sync += self.n.eq(self.n + 1)
            with m.If(Mux(self.checks, self.n == WORDS - 1, self.n == last) & (self.n >= HEAD)):
                m.d.sync += self.n.eq(0)
                with m.If(Mux(self.checks, self.pc == self.last, control & (now.opcode == Control.SWAP))):
                    m.d.sync += self.fetching.eq(0)
                with m.Else():
                    m.d.sync += self.pc.eq(self.pc + 1)
        with m.Elif(self.fetching & bare):
            m.d.sync += self.fetching.eq(0), self.n.eq(0)
        with m.If(resume):
            m.d.sync += self.fetching.eq(1), self.pc.eq(target)

    def _execute(self, m):
        """Add registers, and do what instructions of `CONTROL` say; when to go on then, and where."""
        m.submodules.values = values = Ram(32, REGISTERS + LOOPS)
        wanted = Signal(SELECT * (SELECTED + 3), reset_less=True)       # registers of words to come
        with m.If(self.valid[1] & (self.place[1] == 1)):
            m.d.sync += wanted.eq(self.word)
        with m.If(self.valid[0] & (self.place[0] >= HEAD)):
            m.d.sync += wanted.eq(wanted >> SELECT)
            with m.If(self.place[0] == HEAD):
                m.d.sync += wanted[SELECT * (SELECTED - 1):].eq(self.word)

        opcode, step = self.header.opcode, Signal(2)
        register, other = Signal(SELECT, reset_less=True), Signal(SELECT, reset_less=True)
        steps = self.running & (self.header.engine == Engine.CONTROL) & self.valid[2]
        header, first, second = Signal(), Signal(), Signal()
        m.d.comb += [
            header.eq(steps & (self.place[2] == 0)),
            first.eq(steps & (self.place[2] == HEAD)),
            second.eq(steps & (self.place[2] == HEAD + 1)),
        ]
        returns = Array(Signal(range(self.instructions), name=f"return{n}", reset_less=True) for n in range(LOOPS))
        inner, resume, target = Signal(range(LOOPS)), Signal(), Signal.like(self.pc)
        adds, again, shown, own = Signal(), Signal(), Signal(), Signal()    # what the adder adds
        m.d.comb += [
            inner.eq(self.depth - 1),
            target.eq(self.pc + 1),
            values.read_en.eq(1), values.read_address.eq(wanted[:SELECT]),
            values.write_address.eq(register), values.write_data.eq(self.sum),
        ]
        m.d.sync += adds.eq(self.running & (self.place[0] >= HEAD)), step.eq(0)
        with m.If(first):
            m.d.comb += values.read_address.eq(self.sum[:SELECT])
            m.d.sync += Cat(register, other).eq(self.sum)
        with m.If(second):                          # of SET and ADD
            m.d.comb += again.eq(1), shown.eq(opcode == Control.ADD)
            m.d.sync += step.eq(3)
        with m.Switch(opcode):
            with m.Case(Control.LOOP):
                m.d.comb += values.write_address.eq(REGISTERS + self.depth[:-1])
                with m.If(first & ~self.zero):
                    m.d.comb += values.write_en.eq(1)
                    m.d.sync += returns[self.depth[:-1]].eq(self.source + 1), self.depth.eq(self.depth + 1)
            with m.Case(Control.NEXT):
                m.d.comb += values.write_address.eq(REGISTERS + inner)
                with m.If(header):
                    m.d.comb += values.read_address.eq(REGISTERS + inner)
                    m.d.sync += step.eq(1)
                with m.If(step == 1):
                    m.d.sync += step.eq(2)
                with m.If(step == 2):
                    m.d.comb += values.write_en.eq(1), resume.eq(1)
                    with m.If(self.zero):
                        m.d.sync += self.depth.eq(inner)
                    with m.Else():
                        m.d.comb += target.eq(returns[inner])
            with m.Case(Control.SWAP):
                with m.If(first):
                    m.d.sync += step.eq(1)
                with m.If(step == 1):
                    m.d.comb += values.read_address.eq(other)
                    m.d.sync += step.eq(2)
                with m.If(step == 2):
                    m.d.comb += values.write_en.eq(other != 0), values.write_address.eq(other), resume.eq(1)
                    m.d.sync += step.eq(3)
            with m.Case(Control.END):
                with m.If(header):
                    m.d.sync += self.ended.eq(1)
        with m.If(step == 3):
            m.d.comb += values.write_en.eq(register != 0), values.write_address.eq(register)
        with m.If(self.halt):
            m.d.sync += step.eq(0)
        with m.If(self.preset.en):
            m.d.comb += [values.write_en.eq(1), values.write_address.eq(self.preset.register),
                         values.write_data.eq(self.preset.value)]

        one, two = Signal(32), Signal(32)
        m.d.comb += own.eq((step == 1) | (step == 2))
        with m.If(again):
            m.d.comb += one.eq(self.sum)
        with m.Elif(own):
            m.d.comb += one.eq(Mux(opcode == Control.NEXT, -1, 0))
        with m.Else():
            m.d.comb += one.eq(self.word)
        with m.If(adds | shown | own):
            m.d.comb += two.eq(values.read_data)
        m.d.sync += self.sum.eq(one + two)
        return resume, target

    def _judge(self, m):
        """Say what is wrong with the word in `sum`, and with the whole image."""
        valid, n, header = self.valid[2], self.place[2], self.header
        final, control = Signal(), header.engine == Engine.CONTROL
        m.d.comb += final.eq(self.source == self.last)

        illegal, over = Signal(), {}
        sizes = {sum(word.values()) for forms in FORMS.values() for form in forms.values() for word in form}
        for bits in sizes | {0}:
            over[bits] = Signal(name=f"over{bits}")
            m.d.comb += over[bits].eq(self.sum[bits:].any())
        with m.Switch(n):
            with m.Case(0):
                m.d.comb += illegal.eq((header.zeros != 0) | control & (header.waits != 0))
                with m.Switch(Cat(header.engine, header.opcode)):
                    with m.Case(*(engine | opcode << 3 for engine, forms in FORMS.items() for opcode in forms)):
                        pass
                    with m.Default():
                        m.d.comb += illegal.eq(1)
            for word in 1, 2:
                with m.Case(word):
                    with m.Switch(Cat(header.engine, header.opcode)):
                        for mask, patterns in kinds(lambda form, w=word: selectors(form) >> 32 * w - 32).items():
                            with m.Case(*patterns):
                                m.d.comb += illegal.eq((self.sum & ~Const(mask, 32)).any())
            for word in range(HEAD, WORDS):
                with m.Case(word):
                    m.d.comb += illegal.eq(over[0])
                    with m.Switch(Cat(header.engine, header.opcode)):
                        for bits, patterns in kinds(lambda form, w=word - HEAD: sum(
                                form[w].values()) if w < len(form) else 0).items():
                            with m.Case(*patterns):
                                m.d.comb += illegal.eq(over[bits])

        # Loops, as they stand in the program; with an instruction's last word, when it is known to be legal
        unfit, ends = Signal(), n == WORDS - 1
        with m.If(valid & self.checks & ends & control):
            with m.Switch(header.opcode):
                with m.Case(Control.LOOP):
                    m.d.comb += unfit.eq(self.depth == LOOPS)
                    m.d.sync += self.depth.eq(self.depth + 1)
                with m.Case(Control.NEXT):
                    m.d.comb += unfit.eq(self.depth == 0)
                    m.d.sync += self.depth.eq(self.depth - 1)
                with m.Case(Control.END):
                    m.d.comb += unfit.eq(~final | (self.depth != 0))

        state, broken = Signal(32, reset_less=True), Signal()
        error, pc, refused = Signal(4), Signal.like(self.pc), Signal()      # the first that was found
        after = crc(m, state, self.sum, "after")
        m.d.comb += refused.eq(error != Error.NONE)
        with m.If(valid & self.checks):
            with m.If(~final):
                m.d.sync += state.eq(after)
            with m.Elif(n == 0):
                m.d.sync += broken.eq(self.sum != END)
            with m.Elif((n == HEAD) & (self.sum != ~state)):
                m.d.sync += broken.eq(1)
            with m.If(~refused & (illegal | unfit)):
                m.d.sync += error.eq(Mux(illegal, Error.ILLEGAL, Error.LOOP)), pc.eq(self.source)
        with m.If(self.start):
            m.d.sync += state.eq(0xFFFFFFFF), broken.eq(0), error.eq(Error.NONE)

        m.d.comb += self.fault.pc.eq(Mux(self.checks & refused & ~broken, pc, self.source))
        with m.If(self.checks & valid & final & ends):
            m.d.sync += self.checks.eq(0)
            m.d.comb += self.fault.valid.eq(1)
            with m.If(broken):
                m.d.comb += self.fault.error.eq(Error.CHECKSUM)
            with m.Elif(refused):
                m.d.comb += self.fault.error.eq(error)
            with m.Elif(illegal | unfit):
                m.d.comb += self.fault.error.eq(Mux(illegal, Error.ILLEGAL, Error.LOOP))
            with m.Else():
                m.d.comb += self.fault.valid.eq(0)
                m.d.sync += self.running.eq(1), self.fetching.eq(1), self.pc.eq(0)
        with m.Elif(self.running & valid & (n >= HEAD)):
            m.d.comb += self.write.en.eq(~control), self.fault.error.eq(Mux(illegal, Error.ILLEGAL, Error.LOOP))
            m.d.comb += self.fault.valid.eq(illegal | control & (header.opcode == Control.LOOP) & self.zero)
        m.d.comb += self.write.index.eq(n - HEAD), self.write.data.eq(self.sum)
