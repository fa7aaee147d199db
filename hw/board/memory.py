# SPDX-License-Identifier: Apache-2.0
"""Memory on the chip, byte-addressed, with several readers and writers."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from hw.emit import Block
from hw.fetch import Steps, request, response, write
from hw.ram import Ram
from hw.stream import DeepQueue, Queue

__all__ = ["Memory"]

REQUESTS = 4    # of a reader, taken before any is answered; what the engine counts on
WAITING = 8     # beats of a reader that may be under way or waiting: enough for one a cycle


class Memory(Block):
    """Serves the requests of its readers and takes what its writers give, at any byte address.

    One beat is read and one written in a cycle, for the first reader and the first writer that has
    something to do, in the order of their numbers. A reader that is not first waits for as long as
    those before it take their beats: in the engine, none takes more than it needs. The first writer
    never waits. A read sees what was written three cycles before.

    Words are spread over memories of a byte's width, so that neither alignment nor the length of a
    write matters: a beat's bytes come from two neighbouring words, and are turned into place.

    Parameters
    ----------
    size : int
        Bytes, a power of two. Addresses beyond wrap round and are a `fault`.
    readers : tuple of (int, int, int)
        Bytes of a beat, and most beats and rows of a request, of each reader.
    writers : tuple of int
        Most bytes of a write, of each writer.

    Members
    -------
    request0 ... : In(stream.Signature(request(beats, rows)))
    response0 ... : Out(stream.Signature(response(8 * bytes)))
    write0 ... : In(stream.Signature(write(bytes)))
    fault : Out(1)
        An address was beyond the memory; stays until `clear`.
    clear : In(1)
    """

    def __init__(self, size, readers, writers):
        if size & (size - 1) or size < 1024:
            raise ValueError(f"Memory: size must be a power of two from 1024 on, not {size!r}")
        self.size, self.readers, self.writers = size, readers, writers
        self.lanes = 1 << ceil_log2(max(*writers, *(width for width, _, _ in readers)))
        members = {}
        for n, (width, beats, rows) in enumerate(readers):
            members |= {f"request{n}": In(stream.Signature(request(beats, rows))),
                        f"response{n}": Out(stream.Signature(response(8 * width)))}
        members |= {f"write{n}": In(stream.Signature(write(width))) for n, width in enumerate(writers)}
        super().__init__(members | {"fault": Out(1), "clear": In(1)})

    def elaborate(self, platform):
        m = Module()
        rams = [Ram(8, self.size // self.lanes) for _ in range(self.lanes)]
        for n, ram in enumerate(rams):
            m.submodules[f"lane{n}"] = ram
        self._read(m, rams)
        self._write(m, rams)
        with m.If(self.clear):
            m.d.sync += self.fault.eq(0)
        return m

    def _read(self, m, rams):
        # A beat is asked for when there is room to keep it.
        owner = Signal(len(self.readers))                   # one bit a reader; none: no beat
        due, steps, queues = Signal(len(self.readers)), [], []
        for n, (width, beats, rows) in enumerate(self.readers):
            steps.append(Steps(width, beats, rows))
            queues.append(DeepQueue(response(8 * width), WAITING))
            m.submodules[f"steps{n}"], m.submodules[f"queue{n}"] = step, queue = steps[n], queues[n]
            m.submodules[f"requests{n}"] = requests = Queue(request(beats, rows), REQUESTS)
            connect(m, flipped(getattr(self, f"request{n}")), requests.i)
            connect(m, requests.o, step.i)
            connect(m, queue.o, flipped(getattr(self, f"response{n}")))
            room = Signal(range(WAITING + 1), init=WAITING, name=f"room{n}")
            m.d.sync += room.eq(room - step.o.ready + (queue.o.valid & queue.o.ready))
            m.d.comb += due[n].eq(step.o.valid & (room != 0))
        m.d.comb += Cat(step.o.ready for step in steps).eq(due & -due)     # the first
        asked = Signal.like(steps[0].o.payload, reset_less=True)
        m.d.sync += owner.eq(due & -due)
        for step in steps:
            with m.If(step.o.ready):
                m.d.sync += asked.eq(step.o.payload)

        # Then come the two words that hold it, and the turn into place.
        found = Signal(data.StructLayout({"offset": ceil_log2(self.lanes), "last": 1}), reset_less=True)
        turned = Signal(response(8 * self.lanes), reset_less=True)
        owner1, owner2 = Signal.like(owner), Signal.like(owner)
        for ram, address in zip(rams, self._words(m, asked.address, "read"), strict=True):
            m.d.comb += ram.read_en.eq(1), ram.read_address.eq(address)
        m.d.sync += [
            found.offset.eq(asked.address), found.last.eq(asked.last),
            turned.data.eq(_turn(m, Cat(ram.read_data for ram in rams), found.offset, "right")),
            turned.last.eq(found.last),
            owner1.eq(owner), owner2.eq(owner1),
        ]
        for n, queue in enumerate(queues):
            m.d.comb += [
                queue.i.valid.eq(owner2[n]),
                queue.i.payload.data.eq(turned.data), queue.i.payload.last.eq(turned.last),
            ]
        with m.If(owner.any() & self._beyond(asked.address)):
            m.d.sync += self.fault.eq(1)

    def _write(self, m, rams):
        # The first that has something is taken.
        given, valid = Signal(write(self.lanes), reset_less=True), Signal()
        ports = [getattr(self, f"write{n}") for n in range(len(self.writers))]
        m.d.sync += valid.eq(Cat(port.valid for port in ports).any())
        for n, port in reversed([*enumerate(ports)]):
            m.d.comb += port.ready.eq(~Cat(first.valid for first in ports[:n]).any())
            with m.If(port.valid):
                m.d.sync += (given[name].eq(port.payload[name]) for name, _ in given.shape())

        # Its bytes are turned to their lanes.
        offset, turned = given.address[:ceil_log2(self.lanes)], Signal(8 * self.lanes, reset_less=True)
        m.d.sync += turned.eq(_turn(m, given.data, offset, "left"))
        for n, (ram, address) in enumerate(zip(rams, self._words(m, given.address, "write"), strict=True)):
            place, en = Signal.like(offset, name=f"place{n}"), Signal(name=f"write_en{n}")
            held = Signal.like(address, name=f"write_address{n}", reset_less=True)
            m.d.comb += place.eq(n - offset)
            m.d.sync += en.eq(valid & (place < given.count)), held.eq(address)
            m.d.comb += [
                ram.write_en.eq(en), ram.write_address.eq(held),
                ram.write_data.eq(turned.word_select(n, 8)),
            ]
        with m.If(valid & self._beyond(given.address)):
            m.d.sync += self.fault.eq(1)

    def _words(self, m, address, use):
        """For each lane the word in which it has its byte of a beat that begins at `address`."""
        bits = ceil_log2(self.lanes)
        offset, word = address[:bits], address[bits:ceil_log2(self.size)]
        following = Signal.like(word, name=f"{use}_following")
        m.d.comb += following.eq(word + 1)
        for n in range(self.lanes - 1):
            chosen = Signal.like(word, name=f"{use}_word{n}")
            m.d.comb += chosen.eq(Mux(offset > n, following, word))
            yield chosen
        yield word

    def _beyond(self, address):
        return address[ceil_log2(self.size):].any()


def _turn(m, value, offset, direction):
    """`value` with its bytes rotated by `offset`, a bit of it at a time."""
    for bit in range(len(offset)):
        step = Signal.like(value, name=f"{direction}{bit}")
        amount = 8 << bit
        m.d.comb += step.eq(Mux(offset[bit], getattr(value, f"rotate_{direction}")(amount), value))
        value = step
    return value
