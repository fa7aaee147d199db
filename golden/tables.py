# SPDX-License-Identifier: Apache-2.0
"""Tables of the elementary functions: quadratics on 64 pieces of [0, 1), the same numbers in golden and hardware.

With g = (i + u) / 64, u in [0, 1), a function is (a + b u + c u**2) / 2**`PLACES` of row i. The quadratic meets the
function at both ends of the piece and in its middle, so powers of two come out exactly; its coefficients are computed
with 50 digits and rounded once, so they are the same on every machine.
"""

from decimal import Decimal, localcontext
from functools import cache

from golden.formats import FP32

__all__ = ["CHOICE", "FUNCTIONS", "INDEX", "LIFT", "LOWEST", "PIECES", "PLACES", "SQUARE", "SQUARED", "WHOLE", "chords",
           "table"]

PIECES, PLACES = 64, 26
CHOICE = 6                          # bits that choose a piece
INDEX = FP32.mantissa - PIECES.bit_length() + 1     # bits of u
SQUARE, SQUARED = 10, 11            # bits of u that are squared, and that are kept of the square
WHOLE = 16                          # bits before the point that exp2 looks at
LOWEST = 1 - (1 << WHOLE)           # where running maxima of integers begin
LIFT = 32                           # powers of two that keep 1 / (1 + e**-x) a normal number

NODES = Decimal(0), Decimal("0.5"), Decimal(1)

FUNCTIONS = {
    "exp2": lambda g: 2 ** g,
    "reciprocal": lambda g: 2 / (1 + g),
    "rsqrt": lambda g: 2 / (1 + g).sqrt(),
    "rsqrt_odd": lambda g: 2 / (2 + 2 * g).sqrt(),
}
"""Of g in [0, 1); with values in [1, 2]."""


@cache
def table(name):
    """Rows of (a, b, c) of a function."""
    with localcontext(prec=50):
        return tuple(_quadratic(FUNCTIONS[name], piece) for piece in range(PIECES))


@cache
def chords(name, places):
    """The function at both ends of all pieces, in units of 2**-`places`, for lines between them: PIECES + 1 numbers."""
    with localcontext(prec=50):
        return tuple(int((FUNCTIONS[name](Decimal(piece) / PIECES) * 2**places).to_integral_value())
                     for piece in range(PIECES + 1))


def _quadratic(function, piece):
    x, y = NODES, [function((piece + node) / PIECES) for node in NODES]
    first, second = (y[1] - y[0]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    c = (second - first) / (x[2] - x[0])
    b = first - c * (x[0] + x[1])
    a = y[0] - x[0] * (b + c * x[0])
    return tuple(int((each * 2**PLACES).to_integral_value()) for each in (a, b, c))
