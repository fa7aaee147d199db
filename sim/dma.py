# SPDX-License-Identifier: Apache-2.0
"""`Load`, `Store` and a scratchpad around one AXI4 port, for benches."""

from amaranth.hdl import Module
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.transfer import Error
from hw.axi import Axi4, Port
from hw.emit import Block
from hw.fetch import ADDRESS, request, response, write
from hw.instructions import completion, instruction
from hw.memory.load import Load
from hw.memory.rows import COPY, GATHER
from hw.memory.scratchpad import Scratchpad
from hw.memory.store import Store

__all__ = ["Dma"]


class Dma(Block):
    """Both engines, a scratchpad, and a host that reads and writes words of it.

    Parameters
    ----------
    beat, size, banks, word, longest, depth : int
        As of the blocks inside.

    Members
    -------
    load : In(stream.Signature(instruction(len(GATHER)))), loaded : Out(stream.Signature(completion(Error)))
    store : In(stream.Signature(instruction(len(COPY)))), stored : Out(stream.Signature(completion(Error)))
    request : In(stream.Signature(request(size // word, 1))), response : Out(stream.Signature(response(8 * word)))
    write : In(stream.Signature(write(word)))
    axi : Out(Axi4(address_bits=32, beat=beat, id_bits=1))
    fault : Out(1), dead : Out(1)
    """

    def __init__(self, beat, size, banks, word, longest, depth):
        self.beat, self.size, self.banks, self.word, self.longest, self.depth = beat, size, banks, word, longest, depth
        super().__init__({
            "load": In(stream.Signature(instruction(len(GATHER)))), "loaded": Out(stream.Signature(completion(Error))),
            "store": In(stream.Signature(instruction(len(COPY)))), "stored": Out(stream.Signature(completion(Error))),
            "request": In(stream.Signature(request(size // word, 1))),
            "response": Out(stream.Signature(response(8 * word))),
            "write": In(stream.Signature(write(word))),
            "axi": Out(Axi4(address_bits=ADDRESS, beat=beat, id_bits=1)),
            "fault": Out(1), "dead": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        beat, size, word = self.beat, self.size, self.word
        m.submodules.load_engine = load = Load(beat, size, self.longest, self.depth)
        m.submodules.store_engine = store = Store(beat, size, self.longest)
        m.submodules.scratchpad = scratchpad = Scratchpad(
            size, self.banks, word, ((4, 4, 1, 1), (beat, beat, size // beat, 1), (word, word, size // word, 1)),
            ((beat, beat), (word, 1)))
        m.submodules.port = port = Port(ADDRESS, beat, self.depth + 1, 10_000)
        for outer, inner in (
                ("load", load.i), ("store", store.i), ("request", scratchpad.request2), ("write", scratchpad.write1)):
            connect(m, flipped(getattr(self, outer)), inner)
        for inner, outer in (
                (load.done, "loaded"), (store.done, "stored"), (scratchpad.response2, "response"), (port.axi, "axi")):
            connect(m, inner, flipped(getattr(self, outer)))
        for one, other in (
                (load.index_request, scratchpad.request0), (scratchpad.response0, load.index),
                (store.request, scratchpad.request1), (scratchpad.response1, store.response),
                (load.write, scratchpad.write0), (load.memory, port.read0), (store.memory, port.write1)):
            connect(m, one, other)
        m.d.comb += self.fault.eq(scratchpad.fault.any()), self.dead.eq(port.dead)
        return m
