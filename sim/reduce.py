# SPDX-License-Identifier: Apache-2.0
"""Packets for `hw.noc.reduce`, and what golden makes of them, as the bits of its ports."""

from collections import defaultdict
from itertools import combinations

import numpy as np

from golden.noc import DeadlockError, Join, check_groups, combine
from golden.packet import HEADER, ORDER, Reduction
from golden.paging import pack
from sim.operands import CORNERS

__all__ = ["SHAPES", "allowed", "operands", "order", "packet", "reductions", "result", "some_join"]

SHAPES = [tuple(port for port in ORDER if port in some)
          for count in range(1, 6) for some in combinations(ORDER, count)]


def some_join(rng, ports=ORDER, shape=None):
    """Any inputs, if none are given, output and operation."""
    shapes = [shape] if shape else [each for each in SHAPES if set(each) <= set(ports)]
    return Join(rng.choice(shapes), rng.choice(ports), rng.choice(list(Reduction)))


def allowed(joins):
    """Whether these groups may be under way in a router together."""
    try:
        check_groups({number: {(0, 0): join} for number, join in joins.items()})
    except DeadlockError:
        return False
    return True


def order(number, join, groups):
    """The port `write`."""
    return 1 | number << 1 | (join.word if join else 0) << 1 + max((groups - 1).bit_length(), 1)


def packet(rng, number, length, bits):
    """The flits of a packet as the bits of an input; some are of odd parity."""
    header = {name: rng.getrandbits(width) for name, width in HEADER.items()}
    head = pack(HEADER, header | {"tag": number, "length": length}) | rng.getrandbits(bits - 64 + 1) >> 1 << 64
    words = [head, *operands(rng, length, bits)]
    return [word | (n == 0) << bits | (n == length) << bits + 1 | (n > 0 and rng.random() < 0.05) << bits + 2
            for n, word in enumerate(words)]


def operands(rng, length, bits):
    """Words for a reduction."""
    return [sum(_lane(rng) << place for place in range(0, bits, 32)) for _ in range(length)]


def _lane(rng):
    """Numbers of about the same magnitude, any, and corners."""
    any = rng.getrandbits(32)
    return rng.choice([any & 0x80FFFFFF | 0x40000000, any & 0x80FFFFFF | 0x40000000, any, rng.choice(CORNERS)])


def result(join, packets, bits):
    """What comes of the packets of a reduction, by port, as the bits of `o`."""
    def lanes(flits):
        rows = [[flit >> place & 0xFFFFFFFF for place in range(0, bits, 32)] for flit in flits[1:]]
        return np.array(rows, np.uint32).reshape(-1, bits // 32)

    sums = combine(join.op, {port: lanes(flits) for port, flits in packets.items()})
    packets, low = [packets[port] for port in join.inputs], (1 << bits) - 1
    sums = [sum(int(lane) << 32 * n for n, lane in enumerate(row)) for row in sums]
    found = []
    for n, data in enumerate([packets[0][0] & low, *sums]):
        head, tail, odd = n == 0, n == len(sums), any(flits[n] >> bits + 2 for flits in packets)
        parity = (data.bit_count() + head + tail + odd) % 2
        found.append(data | head << bits | tail << bits + 1 | parity << bits + 2 | 1 << bits + 3 + join.output)
    return found


def reductions(rng, joins, count, bits):
    """Flits of some reductions of these groups by port, and what leaves."""
    sent, leaves = defaultdict(list), []
    for _ in range(count):
        number, length = rng.choice(list(joins)), rng.choice([0, 1, 2, 3, 8])
        packets = {port: packet(rng, number, length, bits) for port in joins[number].inputs}
        for port, flits in packets.items():
            sent[port] += flits
        leaves += result(joins[number], packets, bits)
    return sent, leaves
