# SPDX-License-Identifier: Apache-2.0
"""CRC-32 of any number of bytes at once."""

from amaranth.hdl import Cat, Signal

from golden.framing import CRC

__all__ = ["crc"]


def crc(m, state, bytes, name):
    """The CRC's register after some bytes: each bit of it is the parity of some bits of both."""
    masks = [1 << n for n in range(32)]
    for first in range(32, 32 + len(bytes), 8):
        masks[:8] = [mask ^ 1 << first + n for n, mask in enumerate(masks[:8])]
        for _ in range(8):
            low, masks = masks[0], [*masks[1:], 0]
            masks = [mask ^ (low if CRC >> n & 1 else 0) for n, mask in enumerate(masks)]
    both, result = Signal(32 + len(bytes), name=f"{name}_of"), Signal(32, name=name)
    m.d.comb += both.eq(Cat(state, bytes)), result.eq(Cat((both & mask).xor() for mask in masks))
    return result
