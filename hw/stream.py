# SPDX-License-Identifier: Apache-2.0
"""Stream plumbing."""

from amaranth.hdl import Array, Module, Mux, Shape, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from hw.emit import Block
from hw.ram import Ram

__all__ = ["Buffer", "DeepQueue", "Queue", "RamQueue"]


class _Fifo(Block):
    """What all queues have in common: one stream in, one out, `depth` items between."""

    limits = (1, 64)

    def __init__(self, shape, depth):
        low, high = self.limits
        if Shape.cast(shape).width == 0:
            raise ValueError(f"{type(self).__name__}: a payload of zero bits needs no queue")
        if not low <= depth <= high:
            raise ValueError(f"{type(self).__name__}: depth must be {low} to {high}, not {depth!r}")
        self.shape, self.width, self.depth = shape, Shape.cast(shape).width, depth
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
        })

    @property
    def name(self):
        return f"{self.stem}_{self.width}x{self.depth}"

    @property
    def identity(self):
        return type(self), self.width, self.depth    # fields of the payload make no difference

    def next(self, pointer):
        """The slot after `pointer`, round the ring."""
        if self.depth & (self.depth - 1) == 0:
            return pointer + 1
        return Mux(pointer == self.depth - 1, 0, pointer + 1)


class Queue(_Fifo):
    """A short queue in registers. Latency 1 cycle, no loss of throughput from two slots on.

    `valid` and `ready` depend on registers alone, so it cuts every combinational path between `i`
    and `o`. Use it for commands and for slack of a few items; beyond, `DeepQueue` is smaller.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload.
    depth : int
        Items it holds, 1 to 64.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    def elaborate(self, platform):
        m = Module()

        slots = Array(Signal(self.shape, name=f"slot{n}", reset_less=True) for n in range(self.depth))
        head  = Signal(range(self.depth))      # slot to read next
        tail  = Signal(range(self.depth))      # slot to write next
        level = Signal(range(self.depth + 1))  # occupied slots

        m.d.comb += [
            self.i.ready.eq(level != self.depth),
            self.o.valid.eq(level != 0),
            self.o.payload.eq(slots[head]),
        ]

        push = Signal()
        pop  = Signal()
        m.d.comb += push.eq(self.i.valid & self.i.ready)
        m.d.comb += pop.eq(self.o.valid & self.o.ready)

        m.d.sync += level.eq(level + push - pop)
        with m.If(push):
            m.d.sync += slots[tail].eq(self.i.payload), tail.eq(self.next(tail))
        with m.If(pop):
            m.d.sync += head.eq(self.next(head))

        return m


class Buffer(Queue):
    """Two-entry elastic buffer: the smallest `Queue` that registers both directions of a stream at
    full throughput. Put one at a tile boundary or wherever `ready` is the critical path.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    def __init__(self, shape):
        super().__init__(shape, 2)


class DeepQueue(_Fifo):
    """A long queue in a `Ram`. Latency 1 cycle, one item a cycle.

    What comes while the memory is empty goes past it, through a register beside its own. `valid` and
    `ready` depend on registers alone.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload.
    depth : int
        Words of memory, 2 to 65536. One item more fits, in an output register.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    limits = (2, 65536)

    def elaborate(self, platform):
        m = Module()

        m.submodules.ram = ram = Ram(self.width, self.depth)
        head  = Signal(range(self.depth))      # word to read next
        tail  = Signal(range(self.depth))      # word to write next
        level = Signal(range(self.depth + 1))  # words written and not yet read
        valid = Signal()                       # an output register holds an item:
        past  = Signal()                       # this one, not the memory's
        item  = Signal(self.width, reset_less=True)

        free  = Signal()
        push  = Signal()                       # write a word
        fetch = Signal()                       # move the next word to the memory's output register
        skip  = Signal()                       # take an item past the memory
        m.d.comb += [
            self.i.ready.eq(level != self.depth),
            self.o.valid.eq(valid),
            self.o.payload.eq(Mux(past, item, ram.read_data)),
            free.eq(~valid | self.o.ready),
            fetch.eq((level != 0) & free),
            skip.eq((level == 0) & free),
            push.eq(self.i.valid & self.i.ready & ~skip),
            ram.write_en.eq(push),
            ram.write_address.eq(tail),
            ram.write_data.eq(self.i.payload),
            ram.read_en.eq(fetch),
            ram.read_address.eq(head),
        ]

        m.d.sync += level.eq(level + push - fetch)
        with m.If(free):
            m.d.sync += valid.eq(fetch | self.i.valid), past.eq(skip)
        with m.If(skip):
            m.d.sync += item.eq(self.i.payload)
        with m.If(push):
            m.d.sync += tail.eq(self.next(tail))
        with m.If(fetch):
            m.d.sync += head.eq(self.next(head))

        return m


class RamQueue(_Fifo):
    """A queue in nothing but a `Ram`, for wide items that need not be fast. Latency 2 cycles, one item a cycle.

    `valid` and `ready` depend on registers alone.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload.
    depth : int
        Words of memory, 2 to 65536. One item more is at the output.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    limits = (2, 65536)

    def elaborate(self, platform):
        m = Module()

        m.submodules.ram = ram = Ram(self.width, self.depth)
        head  = Signal(range(self.depth))      # word to read next
        tail  = Signal(range(self.depth))      # word to write next
        level = Signal(range(self.depth + 1))  # words written and not yet read
        valid = Signal()                       # the memory's output is an item

        push, fetch = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(level != self.depth),
            self.o.valid.eq(valid),
            self.o.payload.eq(ram.read_data),
            push.eq(self.i.valid & self.i.ready),
            fetch.eq((level != 0) & (~valid | self.o.ready)),
            ram.write_en.eq(push),
            ram.write_address.eq(tail),
            ram.write_data.eq(self.i.payload),
            ram.read_en.eq(fetch),
            ram.read_address.eq(head),
        ]

        m.d.sync += level.eq(level + push - fetch), valid.eq(fetch | valid & ~self.o.ready)
        with m.If(push):
            m.d.sync += tail.eq(self.next(tail))
        with m.If(fetch):
            m.d.sync += head.eq(self.next(head))

        return m
