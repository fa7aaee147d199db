# SPDX-License-Identifier: Apache-2.0
"""What travels on the network: the one description of flits, headers, groups and errors.

x grows to the east, y to the south. A message is cut into packets, a packet is a head flit and `length` flits
of payload. The header fills the low 64 bits of the head flit; what is above them in a wider flit is `extra`,
which the sender gives with the header and the receiver gets with it.
"""

from enum import IntEnum

__all__ = ["DIRECTIONS", "EXTRA", "Error", "FORKS", "GROUP", "HEADER", "LENGTH", "ORDER", "Port", "Reduction", "TURNS",
           "bucket", "flit"]


class Port(IntEnum):
    """Of a router."""

    N = 0
    E = 1
    S = 2
    W = 3
    L = 4       # its node's interface

    @property
    def opposite(self):
        """Where a flit enters the neighbour that it leaves to."""
        return Port.L if self == Port.L else Port((self + 2) % 4)


DIRECTIONS = {Port.N: (0, -1), Port.E: (1, 0), Port.S: (0, 1), Port.W: (-1, 0)}
"""Steps in x and y."""

ORDER = (Port.L, Port.W, Port.E, Port.N, Port.S)
"""The order in which a reduction takes its inputs, one after the other: (((L + W) + E) + N) + S. On their ways, x
first, to the middle of its members each comes about when the sum of those before it is there."""

FORKS = {
    "xy": (Port.E, Port.W, Port.N, Port.S, Port.L),
    "yx": (Port.N, Port.S, Port.E, Port.W, Port.L),
}
"""The order in which a multicast acquires its outputs: as it travels, else two of them could wait for each other."""

_ANY = frozenset(Port) - {Port.L}

TURNS = {
    "xy": {
        Port.N: {Port.S, Port.L},
        Port.E: {Port.N, Port.S, Port.W, Port.L},
        Port.S: {Port.N, Port.L},
        Port.W: {Port.N, Port.E, Port.S, Port.L},
        Port.L: _ANY,
    },
    "yx": {
        Port.N: {Port.E, Port.S, Port.W, Port.L},
        Port.E: {Port.W, Port.L},
        Port.S: {Port.N, Port.E, Port.W, Port.L},
        Port.W: {Port.E, Port.L},
        Port.L: _ANY,
    },
}
"""Outputs that a packet may take from each input, by dimension order. A reduction alone also goes from L to L."""

def flit(data):
    """Fields of a flit of `data` bits on a link and their bits.

    `route` has a bit for each output that a head takes of the router that receives it. It is 0 in a body, which
    follows its head, towards a node, and in a reduction, whose group knows. `parity` makes the ones of all
    fields and of the number of the virtual channel even.
    """
    return {"data": data, "head": 1, "tail": 1, "route": 5, "parity": 1}


LENGTH = 8      # bits of a count of a packet's flits

HEADER = {
    "dst_x": 4, "dst_y": 4,
    "ext_x": 4, "ext_y": 4,     # it goes to the rectangle from dst to dst + ext, but never back to its sender
    "src_x": 4, "src_y": 4,
    "chip": 4,                  # op, chip and user: of the nodes, the network does not look at them
    "op": 4,
    "tag": 8,                   # of the nodes; in a reduction the group, and dst is its root
    "length": LENGTH,           # flits of payload
    "last": 1,                  # of its message
    "reserve": LENGTH,          # flits of reply that the requester holds free
    "user": 7,
}
EXTRA = 64      # first bit of a head flit that is not the header's


class Reduction(IntEnum):
    """What a group does with each 32 bits of payload."""

    SUM_INT32 = 0       # wraps
    SUM_FP32 = 1        # by the rules of `golden.fp32`
    MAX_INT32 = 2       # signed
    MAX_FP32 = 3        # NaN above all, +0 above -0, subnormals are zeros


GROUP = {"inputs": 5, "output": 3, "op": 2}
"""What a router knows of a group: the inputs that take part, a bit for each `Port` (0: no such group
here), the `Port` that the result leaves by, the `Reduction`."""


class Error(IntEnum):
    """What was dropped or refused."""

    NONE = 0
    # by routers
    PARITY = 1          # a head of odd parity
    FRAME = 2           # a body where a head must be, or a head inside a packet
    ROUTE = 3           # a head that takes no output, or one that it may not
    OVERFLOW = 4        # a flit without a credit
    GROUP = 5           # a reduction whose group is not known, or whose inputs differ in group or length
    PATIENCE = 6        # a reduction that waited too long for its other inputs
    # by interfaces
    PAYLOAD = 7         # a flit of odd parity in a packet, which is delivered and marked
    OUTSIDE = 8         # commands: a destination that is not on the mesh
    SELF = 9            # to nobody but the sender
    RECTANGLE = 10      # a rectangle in a class without multicast
    NO_GROUP = 11       # a reduction in a group beyond those of a router
    RESERVE = 12        # a request whose reply can never fit


def bucket(x, y):
    """Packets of one bucket keep their order in a class of several virtual channels: 8 of them, by destination."""
    return (x ^ y << 1 ^ y >> 2) & 7
