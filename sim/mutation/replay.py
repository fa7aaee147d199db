# SPDX-License-Identifier: Apache-2.0
"""What a block was given, cycle by cycle, and what was seen of it; given to its mutants, who must show the same."""

from amaranth.lib.wiring import Out
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

__all__ = ["Replay"]

PAYLOADS = "payload", "flit"        # at which nobody looks unless they are valid


class Replay:
    """Records runs of a block with mutants inside, and plays them again.

    Parameters
    ----------
    dut : cocotb handle
    block : Block
    """

    def __init__(self, dut, block):
        self.dut, self.inputs, self.outputs = dut, {"rst": dut.rst}, {}
        names = {path: "__".join(map(str, path)) for path, _, _ in block.signature.flatten(block)}
        for path, member, _ in block.signature.flatten(block):
            handle = getattr(dut, names[path])
            if member.flow is Out:
                self.outputs[names[path]] = handle, names[*path[:-1], "valid"] if path[-1] in PAYLOADS else None
            else:
                self.inputs[names[path]] = handle
        self.outputs = dict(sorted(self.outputs.items(), key=lambda each: each[1][1] is not None))

    def look(self):
        """What is seen now."""
        seen = {}
        for name, (handle, valid) in self.outputs.items():
            seen[name] = int(handle.value) if valid is None or seen[valid] else None
        return seen

    async def record(self, run):
        """Add inputs and what is seen to `run` in each cycle."""
        while True:
            await RisingEdge(self.dut.clk)
            run.append(({name: int(handle.value) for name, handle in self.inputs.items()}, self.look()))

    async def unlike(self, runs, numbers, warm):
        """The mutants that show anything else, by number: in which run, and where.

        Each begins out of `warm` cycles of the first run, played by the block itself, and so does that for comparison.
        """
        before, found = dict.fromkeys(self.inputs), {}

        async def drive(inputs):
            for name, value in inputs.items():
                if value != before[name]:
                    self.inputs[name].value = before[name] = value
            await RisingEdge(self.dut.clk)

        async def begin(number):
            self.dut.mutant.value = 0
            for inputs, _ in runs[0][:warm]:
                await drive(inputs)
            self.dut.mutant.value = number

        Clock(self.dut.clk, 2, unit="ns").start()
        await begin(0)
        cycles = []
        for n, run in enumerate(runs):
            for cycle, (inputs, _) in enumerate(run):
                await drive(inputs)
                cycles.append((n, cycle, inputs, self.look()))
        for number in [0, *numbers, 0]:
            await begin(number)
            for n, cycle, inputs, due in cycles:
                await drive(inputs)
                if (seen := self.look()) != due:
                    found[number] = n, f"cycle {cycle}: {next(name for name, now in seen.items() if due[name] != now)}"
                    break
        assert 0 not in found, f"the block itself does not do as before: run {found[0]}"
        return found
