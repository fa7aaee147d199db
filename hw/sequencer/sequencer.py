# SPDX-License-Identifier: Apache-2.0
"""What runs a tile's programs: `golden.isa` in gates."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from golden.isa import FORMS, REGISTERS, Engine, Error
from golden.registers import State
from hw.axi import reading
from hw.emit import Block
from hw.fetch import ADDRESS
from hw.instructions import completion, instruction
from hw.sequencer.dispatcher import ENGINES, Dispatcher
from hw.sequencer.program import Program
from hw.sequencer.queues import Queues

__all__ = ["Sequencer", "names"]

SIZES = tuple(tuple(tuple(sum(word.values()) for word in form) for form in FORMS[engine].values())
              for engine in ENGINES)


def names():
    """What the engines' ports are called."""
    return [engine.name.lower() for engine in ENGINES]


class Sequencer(Block):
    """Reads a program, checks it, hands its instructions to the engines, and ends.

    After an error nothing more is dispatched, and what has not been offered to an engine is dropped. What is under way
    is waited for; then the weights that nobody will want are aborted. If nothing moves for `patience` cycles, in this
    or in a program, all engines are to be reset. After `stop` they are at most that long waited for, whatever moves.

    Parameters
    ----------
    config : golden.config.Sequencer
    beat : int
        Bytes of a beat of memory.

    Members
    -------
    start : In(stream.Signature(struct(address, count)))
        Run an image of so many instructions; at rest this is taken at once.
    registers : In(ArrayLayout(32, REGISTERS))
        What they are at the start; to hold for `REGISTERS` cycles more. Register 0 is 0.
    memory : Out(reading(...))
    <engine> : Out(stream.Signature(instruction(words)))
    <engine>_done : In(stream.Signature(completion(), always_ready=True))
    stop, clear : In(1)
        Give up what runs; forget the error.
    restart : In(1)
        Give up what runs, at once, and reset all engines.
    activity : In(1)
        Something moves in an engine.
    astray : In(len(ENGINES))
        By engine: it uses an address that there is not.
    status : Out(struct(state, pc))
        `pc` is of the instruction that is dispatched.
    error : Out(struct(code, engine, pc, detail))
        The first since `clear`: a `golden.isa.Error`; of an engine, or of `CONTROL`; in which instruction; and what the
        engine says.
    finished : Out(1)
        In the last cycle of a program that ends well.
    cancel : Out(1)
        Those that prefetch are to end what they are at, and forget what they have: nobody will want it any more.
    reset : Out(1)
        Engines are to be reset, until `resumed`.
    resumed : In(1)
    busy : Out
        By engine: instructions are under way.
    waits : Out
        By engine, then engine: the next instruction waits for that one.
    """

    def __init__(self, config, beat):
        self.config, self.beat = config, beat
        self.program = Program(config.instructions, beat)
        self.queues = Queues(SIZES, config.queue, config.instructions)
        pc = range(config.instructions)
        super().__init__({
            "start": In(stream.Signature(data.StructLayout({"address": ADDRESS, "count": 16}))),
            "registers": In(data.ArrayLayout(32, REGISTERS)),
            "memory": Out(reading(ADDRESS - ceil_log2(beat), beat)),
            **{name: Out(stream.Signature(instruction(words)))
               for name, words in zip(names(), self.queues.words, strict=True)},
            **{f"{name}_done": In(stream.Signature(completion(), always_ready=True)) for name in names()},
            "stop": In(1), "clear": In(1), "restart": In(1), "activity": In(1), "astray": In(len(ENGINES)),
            "status": Out(data.StructLayout({"state": State, "pc": pc})),
            "error": Out(data.StructLayout({"code": 4, "engine": 3, "pc": pc, "detail": 8})),
            "finished": Out(1), "cancel": Out(1), "reset": Out(1), "resumed": In(1),
            "busy": Out(len(ENGINES)), "waits": Out(data.ArrayLayout(len(ENGINES), len(ENGINES))),
        })

    def elaborate(self, platform):
        m, config = Module(), self.config
        m.submodules.program = program = self.program
        m.submodules.dispatcher = dispatcher = Dispatcher(config.instructions)
        m.submodules.queues = queues = self.queues
        connect(m, program.memory, flipped(self.memory))
        for n, name in enumerate(names()):
            connect(m, getattr(queues, f"o{n}"), flipped(getattr(self, name)))
            connect(m, flipped(getattr(self, f"{name}_done")), getattr(queues, f"done{n}"))
        m.d.comb += [
            program.read_en.eq(dispatcher.read_en), program.pc.eq(dispatcher.pc), program.n.eq(dispatcher.n),
            dispatcher.word.eq(program.word), dispatcher.room.eq(queues.room),
            queues.begin.eq(dispatcher.begin), queues.engine.eq(dispatcher.header.engine),
            queues.opcode.eq(dispatcher.header.opcode), queues.waits.eq(dispatcher.header.waits),
            queues.pc.eq(dispatcher.source), queues.write.eq(dispatcher.write), queues.astray.eq(self.astray),
            self.busy.eq(queues.busy), self.waits.eq(queues.waits_for),
            self.status.pc.eq(dispatcher.pc),
        ]

        start, registers = self.start, [0, *(self.registers[n] for n in range(1, REGISTERS))]
        begins, beyond, presets, preset = Signal(), Signal(), Signal(), Signal(range(REGISTERS))
        m.d.comb += [
            begins.eq(start.valid & start.ready),
            dispatcher.preset.en.eq(presets), dispatcher.preset.register.eq(preset),
            dispatcher.preset.value.eq(Array(registers)[preset]),
            program.start.address.eq(start.payload.address), program.start.count.eq(start.payload.count),
            beyond.eq((start.payload.count == 0) | (start.payload.count > config.instructions) | ~program.aligned),
        ]
        m.d.sync += preset.eq(Mux(begins, 0, preset + 1)), presets.eq(begins | presets & (preset != REGISTERS - 1))
        with m.If(begins):
            m.d.sync += dispatcher.last.eq(start.payload.count - 1)

        # What moves; after `forced` that does not matter
        watches, moves, forced, halts, late = Signal(), Signal(), Signal(), Signal(), Signal()
        quiet = Signal(range(config.patience + 1))
        m.d.comb += [
            moves.eq(dispatcher.read_en | queues.moves | program.moves | self.activity),
            late.eq(quiet == config.patience),
            program.halt.eq(halts), dispatcher.halt.eq(halts), queues.drop.eq(halts),
        ]
        m.d.sync += quiet.eq(Mux(~watches | halts | late | moves & ~forced, 0, quiet + 1))

        def fails(code, engine=Engine.CONTROL, pc=0, detail=0, to="DRAIN"):
            m.d.sync += [self.error.code.eq(code), self.error.engine.eq(engine), self.error.pc.eq(pc),
                         self.error.detail.eq(detail)]
            m.d.comb += halts.eq(1)
            m.next = to

        weights = ENGINES.index(Engine.WEIGHTS)
        others, rest = (Cat(each[n] for n in range(len(ENGINES)) if n != weights)
                        for each in (queues.offered, queues.pending))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += start.ready.eq(~self.restart)
                m.d.sync += forced.eq(0)
                with m.If(self.restart):
                    m.next = "RESET"
                with m.Elif(start.valid & beyond):
                    fails(Error.SIZE)
                with m.Elif(start.valid):
                    m.d.comb += program.start.valid.eq(1)
                    m.next = "LOAD"

            with m.State("LOAD"):
                m.d.comb += watches.eq(1), self.status.state.eq(State.LOADING)
                with m.If(self.restart):
                    fails(Error.STOPPED, to="RESET")
                with m.Elif(self.stop):
                    m.d.sync += forced.eq(1)
                    fails(Error.STOPPED)
                with m.Elif(late):
                    fails(Error.WATCHDOG, to="RESET")
                with m.Elif(~program.busy & program.error):
                    fails(Error.BUS, pc=program.error_pc)
                with m.Elif(~program.busy):
                    m.d.comb += dispatcher.start.eq(1)
                    m.next = "RUN"

            with m.State("RUN"):
                m.d.comb += watches.eq(1), queues.expired.eq(late), self.cancel.eq(dispatcher.ended & ~rest.any())
                m.d.comb += self.status.state.eq(Mux(dispatcher.running, State.RUNNING, State.LOADING))
                fault = queues.fault
                with m.If(self.restart):
                    fails(Error.STOPPED, pc=dispatcher.pc, to="RESET")
                with m.Elif(dispatcher.fault.valid):
                    fails(dispatcher.fault.error, pc=dispatcher.fault.pc)
                with m.Elif(fault.valid & fault.late):
                    fails(Error.WATCHDOG, fault.engine, fault.pc, to="RESET")
                with m.Elif(fault.valid):
                    fails(Mux(fault.detail == 0, Error.ADDRESS, Error.INSTRUCTION), fault.engine, fault.pc,
                          fault.detail)
                with m.Elif(self.stop):
                    m.d.sync += forced.eq(1)
                    fails(Error.STOPPED, pc=dispatcher.pc)
                with m.Elif(dispatcher.ended & ~queues.pending.any()):
                    m.d.comb += self.finished.eq(1), dispatcher.halt.eq(1)
                    m.next = "IDLE"

            for state, done, then in ("DRAIN", ~others.any() & ~program.busy, "CANCEL"), (
                    "CANCEL", ~queues.offered[weights], "ERROR"):
                with m.State(state):
                    m.d.comb += watches.eq(1), self.status.state.eq(State.DRAINING), self.cancel.eq(state == "CANCEL")
                    m.d.sync += forced.eq(forced | self.stop)
                    with m.If(late | self.restart):
                        m.next = "RESET"
                    with m.Elif(done):
                        m.next = then

            with m.State("RESET"):
                m.d.comb += self.status.state.eq(State.DRAINING), self.reset.eq(1)
                with m.If(self.resumed):
                    m.d.comb += queues.clear.eq(1), program.clear.eq(1)
                    m.next = "IDLE"
                    with m.If(self.error.code != 0):
                        m.next = "ERROR"

            with m.State("ERROR"):
                m.d.comb += self.status.state.eq(State.ERROR)
                with m.If(self.restart):
                    m.next = "RESET"
                with m.Elif(self.clear):
                    m.d.sync += self.error.eq(0)
                    m.next = "IDLE"
        return m
