# SPDX-License-Identifier: Apache-2.0
"""The number formats of `golden.formats` as Amaranth shapes."""

from amaranth.hdl import Cat, Const, signed
from amaranth.lib import data

from golden.formats import E8M0, INT8, Format

__all__ = ["Float", "FloatView", "shape"]


class Float(data.StructLayout):
    """A floating-point format: `mantissa`, `exponent` and `sign`, from the lowest bit.

    A signal of this shape is a `FloatView`; so is `Float(fmt)(value)` for any value of `fmt.width` bits.
    E8M0 has an exponent alone.

    Parameters
    ----------
    fmt : Format
        Any of `golden.formats.FORMATS` but INT8.
    """

    def __init__(self, fmt: Format):
        if fmt is INT8:
            raise ValueError("Float: int8 is no floating-point format; its shape is signed(8)")
        self.fmt = fmt
        fields = {"mantissa": fmt.mantissa, "exponent": fmt.exponent, "sign": int(fmt.signed)}
        super().__init__({name: width for name, width in fields.items() if width})

    def __call__(self, target):
        return FloatView(self, target)

    def __repr__(self):
        return f"Float({self.fmt!r})"


class FloatView(data.View):
    """What the bits of a number say about it. Each property is an expression: name it if used twice."""

    @property
    def fmt(self):
        return self.shape().fmt

    @property
    def hidden(self):
        """The leading bit of the significand: 0 in zero and subnormals, 1 else."""
        return Const(1, 1) if self.fmt is E8M0 else self.exponent.any()

    @property
    def significand(self):
        """`mantissa` + 1 bits, in units of the last place."""
        return Cat(self.mantissa, self.hidden) if self.fmt.mantissa else self.hidden

    @property
    def effective_exponent(self):
        """The exponent field, 1 where it is 0: the value is significand * 2**(this - bias - mantissa)."""
        return self.exponent | (~self.hidden if self.fmt is not E8M0 else 0)

    @property
    def is_zero(self):
        """Plus or minus zero; E8M0 has none."""
        return Const(0, 1) if self.fmt is E8M0 else ~(self.exponent.any() | self.mantissa.any())

    @property
    def is_nan(self):
        if self.fmt.nan is None:
            return Const(0, 1)
        if self.fmt.inf is not None:
            return self.exponent.all() & self.mantissa.any()
        return self.exponent.all() & self.mantissa.all() if self.fmt.mantissa else self.exponent.all()

    @property
    def is_inf(self):
        return Const(0, 1) if self.fmt.inf is None else self.exponent.all() & ~self.mantissa.any()


def shape(fmt):
    """The shape of a number in `fmt`: `signed(8)` for INT8, else a `Float`."""
    return signed(8) if fmt is INT8 else Float(fmt)
