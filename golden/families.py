# SPDX-License-Identifier: Apache-2.0
"""The datapath families of the matmul engine: which formats each multiplies and how wide its exact sums are.

A family fixes the fixed-point grid on which every product lies: a product is an integer number of
`2**lsb`, at most `peak` in magnitude, so sums of any length have an exact width.
"""

from dataclasses import dataclass

__all__ = ["FAMILIES", "FORMAT_CODES", "Family"]

FORMAT_CODES = {name: code for code, name in enumerate(("fp32", "bf16", "e4m3", "e5m2", "int8", "e2m1"))}
"""How a command names a format, in 3 bits."""


@dataclass(frozen=True)
class Family:
    """One datapath family.

    Attributes
    ----------
    name : str
    activations, weights : tuple of str
        Names in `golden.formats.FORMATS` of what it takes, full-rate formats first.
    bits : int
        Bits of a stored weight lane; a weight or activation beat carries `depth * bits / 8` bytes.
    lsb : int
        Products are integers times 2**lsb.
    peak : int
        Largest magnitude of a product of finite operands, in units of 2**lsb.
    nan : bool
        Whether any of its formats has a NaN or an infinity.
    aligned : tuple of str
        Formats too wide in range for exact sums. With one of them on either side, four lanes make one
        product of 8-bit significands, and sums are aligned to the largest exponent so far: `golden.dot`.
    """

    name: str
    activations: tuple[str, ...]
    weights: tuple[str, ...]
    bits: int
    lsb: int
    peak: int
    nan: bool
    aligned: tuple[str, ...] = ()

    def rate(self, a_format, w_format):
        """Lanes that one product takes: 4 where sums are aligned, else 1."""
        return 4 if {a_format, w_format} & set(self.aligned) else 1

    def sum_bits(self, count):
        """Bits of a signed integer that holds every sum of `count` products."""
        return (count * self.peak).bit_length() + 1


FAMILIES = {family.name: family for family in (
    Family("int8", ("int8",), ("int8",), bits=8, lsb=0, peak=128 * 128, nan=False),
    Family("fp8", ("e4m3",), ("e4m3", "e2m1"), bits=8, lsb=-18, peak=(448 << 9) ** 2, nan=True),
    Family("fp4", ("e2m1",), ("e2m1",), bits=4, lsb=-2, peak=12 * 12, nan=False),
    Family("uni", ("e4m3", "e5m2", "bf16"), ("e4m3", "e2m1", "e5m2", "bf16"), bits=8, lsb=-18,
           peak=255 ** 2 << 20, nan=True, aligned=("e5m2", "bf16")),
)}
