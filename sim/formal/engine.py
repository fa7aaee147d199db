# SPDX-License-Identifier: Apache-2.0
"""Contract of `hw.matmul.engine.Engine`: each command gives its results, all of them, once, and then completes."""

from amaranth.hdl import Mux, Signal

from hw.matmul.engine import reads
from hw.matmul.ports import Error
from sim.formal.contract import Contract
from sim.formal.walker import WalkerRules

__all__ = ["EngineRules"]


class EngineRules(Contract):
    """Any one command is followed from its acceptance to its completion, and of its results any one element.

    Nothing is required of responses but the rule of streams: they may be short, long, or of no request.
    """

    def rules(self, m, block):
        config, commands, results, completions = block.config, block.commands, block.results, block.completions
        accepted, produced, ended = self.moves(commands), self.moves(results), self.moves(completions)
        result, completion = results.payload, completions.payload
        open = Signal(range(32))                # commands accepted and not completed
        m.d.sync += open.eq(open + accepted - ended)

        follow, followed, ahead = self.any(1, "follow"), Signal(), Signal.like(open)
        command, fault, turn, sound = Signal(commands.payload.shape()), Signal(Error), Signal(), Signal()
        with m.If(accepted & follow & ~followed):
            m.d.sync += followed.eq(1), command.eq(commands.payload), ahead.eq(open - ended)
        with m.Elif(followed & ended):
            m.d.sync += ahead.eq(ahead - 1), followed.eq(ahead != 0)
        m.d.comb += [
            turn.eq(followed & (ahead == 0)), fault.eq(WalkerRules.fault(config, command)),
            sound.eq(fault == Error.NONE),
        ]

        # An element of Y, any; and the end of results.
        row, column = self.some(16, "row"), self.some(16, "column")
        exists, covers, came, last = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            exists.eq(sound & (row < command.m) & (column < command.n)),
            covers.eq((result.row == row) & (result.column <= column) & (column < result.column + result.count)),
        ]
        with m.If(ended):
            m.d.sync += came.eq(0), last.eq(0)
        with m.Elif(produced):
            m.d.sync += came.eq(came | covers), last.eq(result.last)

        # The sticky error.
        kept, told = Signal(Error), Signal()
        m.d.sync += kept.eq(Mux(block.clear, Error.NONE, block.error))
        m.d.sync += told.eq(ended & (completion.error != Error.NONE) & ~block.clear)

        self.require("commands hold", self.steady(commands))
        for name, (_, beats, rows) in reads(config).items():
            request = getattr(block, f"{name}_request")
            asked = request.payload
            self.require(f"{name} hold", self.steady(getattr(block, name)))
            self.promise(f"requests of {name} hold", self.steady(request))
            self.promise(f"each request of {name} asks for something", ~request.valid | (asked.beats != 0) & (
                asked.beats <= beats) & (asked.rows != 0) & (asked.rows <= rows))
        self.promise("results hold", self.steady(results))
        self.promise("completions hold", self.steady(completions))

        self.promise("no result without a command", ~results.valid | (open != 0))
        self.promise("no result of a refused command", ~(turn & results.valid) | sound)
        self.promise("each result lies within its Y and has its tag", ~(turn & results.valid) | (
            result.tag == command.tag) & (result.row < command.m) & (result.count != 0) & (
            result.column + result.count <= command.n))
        self.promise("no result comes twice", ~(turn & results.valid & covers) | ~came)
        self.promise("no result after the last", ~results.valid | ~last)
        self.promise("no completion without a command", ~completions.valid | (open != 0))
        self.promise("commands complete in order, each once, with its tag",
                     ~(turn & completions.valid) | (completion.tag == command.tag))
        self.promise("a command completes when all of its results came",
                     ~(turn & completions.valid) | (came == exists) & (last == sound))
        self.promise("a refused command says why, another at most that a read went wrong",
                     ~(turn & completions.valid) | Mux(sound, (completion.error == Error.NONE) | (
                         completion.error == Error.RESPONSE), completion.error == fault))
        self.promise("the first error stays", (kept == Error.NONE) | (block.error == kept))
        self.promise("an error of a command is not lost", ~told | (block.error != Error.NONE))
