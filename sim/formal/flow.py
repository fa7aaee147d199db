# SPDX-License-Identifier: Apache-2.0
"""Why the KV stream, attention and the vector engine do not wait for each other for ever.

Items go one way: from the store of the KV cache to attention, from there to memory, from memory to the vector engine.
So it is enough that none of the three stands for more than some cycles while it is given what it waits for and what it
gives is taken, whatever happened before: then the last one goes on, and so does, as its results are taken, the one
before it.
"""

from amaranth.hdl import Cat, Mux, Signal

from golden.config import KvCache, Vector
from hw.attention.attention import Attention
from hw.kvcache.reader import Reader
from hw.vector.engine import Engine
from sim.formal.attention import NUMBERS, OPEN, Heads
from sim.formal.contract import Contract
from sim.formal.prove import Task

__all__ = ["TASKS", "AttentionGoesOn", "EngineGoesOn", "ReaderGoesOn"]


class GoesOn(Contract):
    """A block that does not stand.

    Attributes
    ----------
    within : int
        Of the class: cycles in which something passes.
    """

    def goes_on(self, m, helped, *ports):
        """While the block is `helped`, something passes at some of these ports within some cycles.

        The solver chooses when it begins to stand, and is then held to that: it looks for nothing else.
        """
        moved, stands = Cat(self.moves(port) for port in ports).any(), Signal(range(self.within + 2))
        begins, begun = self.any(1, "begins"), Signal()
        m.d.sync += begun.eq(begun | begins), stands.eq(stands + (begun & (stands <= self.within)))
        self.require("it stands for good", ~begun | helped & ~moved)
        self.promise("it does not stand", stands <= self.within)

    def open(self, m, begun, *ended):
        """Whether something has begun that has not `ended` in every sense."""
        found = []
        for n, each in enumerate(ended):
            count = Signal(range(OPEN), name=f"open{n}")
            m.d.sync += count.eq(count + begun - each)
            found.append(count != 0)
        return Cat(found).any()


class ReaderGoesOn(GoesOn):
    """Slots that are to be read are, if the memory takes requests and answers them."""

    within = 8

    def rules(self, m, block):
        i, o, retire, ar, r, config = block.i, block.o, block.retire, block.memory.ar, block.memory.r, block.config
        owed = Signal(range(2 * config.buffer))
        m.d.sync += owed.eq(owed + Mux(self.moves(ar), ar.payload.len + 1, 0) - self.moves(r))
        self.require("i holds", self.steady(i))
        self.require("slots are of a block", ~i.valid | (i.payload.slots != 0) & (
            i.payload.first + i.payload.slots <= config.block_tokens))
        self.require("no beat that was not asked for", ~r.valid | (owed != 0))
        self.goes_on(m, self.open(m, self.moves(i), block.done.valid) & o.ready & retire.ready & ar.ready & (
            (owed == 0) | r.valid), i, o, retire, ar, r)
        self.reach("slots are read", block.done.valid)


class AttentionGoesOn(Heads, GoesOn):
    """Commands come to their ends, if beats and queries are there."""

    within = 44

    def rules(self, m, block):
        results, completions = block.results, block.completions
        self.streams(m, block.kv, block.beats)
        self.require("commands hold", self.steady(block.commands))
        self.require("queries hold", self.steady(block.queries))
        self.goes_on(m, self.open(m, self.moves(block.commands), self.moves(completions),
                                  self.moves(results) & results.payload.last)
                     & results.ready & completions.ready & block.beats.valid & block.queries.valid,
                     block.commands, block.queries, block.beats, results, completions)


class EngineGoesOn(GoesOn):
    """Instructions complete, if requests are answered, one after the other; rows are short."""

    within = 60

    def rules(self, m, block):
        instructions, results, completions = block.instructions, block.results, block.completions
        given, reads = instructions.payload, ((block.x_request, block.x), (block.y_request, block.y))
        self.require("instructions hold", self.steady(instructions))
        self.require("instructions are short", (given.rows <= 2) & (given.length <= 2 * block.config.lanes)
                     & (given.k <= 2))
        answers = []
        for n, (request, words) in enumerate(reads):
            owed, asked = Signal(4, name=f"owed{n}"), request.payload
            m.d.sync += owed.eq(Mux(self.moves(request), Mux(asked.rows == 1, asked.beats, 2 * asked.beats),
                                    owed - self.moves(words)))
            self.require(f"words {n} hold", self.steady(words))
            self.require(f"words {n} were asked for", ~words.valid | (owed != 0))
            self.require(f"the last of words {n} says so", words.payload.last == (owed == 1))
            self.require(f"requests {n} wait for the answer to the one before", ~request.ready | (owed == 0))
            answers.append(Mux(owed == 0, request.ready, words.valid))
        self.goes_on(m, self.open(m, self.moves(instructions), self.moves(completions)) & Cat(answers).all()
                     & results.ready & completions.ready, instructions, results, completions, *sum(reads, ()))


STORE = KvCache(blocks=3, sequences=2, table=2, block_tokens=2, layers=2, kv_heads=1, head_dim=8, beat=8, lanes=1,
                buffer=16, transfers=4, host_blocks=2, patience=100)
KV = KvCache(format="bf16", beat=8, head_dim=8, lanes=4, block_tokens=2, table=2)
TASKS = [
    Task(Reader(STORE), ReaderGoesOn, depth=25, cover=14, label="a stream of the KV cache goes on"),
    Task(Attention(KV, 1), AttentionGoesOn, depth=70, cover=0, cut=NUMBERS, label="attention goes on"),
    Task(Engine(Vector(lanes=2, row_max=64)), EngineGoesOn, depth=68, cover=0,
         cut=("multiply*", "add", "functions*"), label="the vector engine goes on"),
]
