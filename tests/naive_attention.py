# SPDX-License-Identifier: Apache-2.0
"""Attention to one head a second time, naively: one number after the other, each a fraction.

Nothing is rounded but where `to_nearest`, `to_zero`, `down` or `leading` stands, to a multiple of a power of two or
to so many bits. A sum that is not exact is a pair (value, place): a multiple of its last place.
"""

from fractions import Fraction
from math import floor, isqrt

from golden.scores import FRACTION, GUARD, QUOTIENT, SHARE, WHOLE, Widths

HALF = Fraction(1, 2)
PIECES = 64                 # chords of the functions on a binade
NAN, INFINITY = 0x7FC00000, 0x7F800000


def attention(kv, queries, k, v, k_scales=None, v_scales=None, *, first=0, end=None, sinks=0, sink=None, part=False):
    """Like `golden.attention.attention`, of any sequences; lists of rows, totals, exponents.

    A query without a sink has None in `sink`.
    """
    number = Head(kv, k, v, k_scales, v_scales)
    found = []
    for place, query in enumerate(queries):
        low, high = (each if isinstance(each, int) else int(each[place])
                     for each in (first, len(k) if end is None else end))
        seen = [token for token in range(len(k)) if token < high and (low <= token or token < sinks)]
        found.append(number.attend([int(code) for code in query], seen, sink and sink[place],
                                   part))
    return tuple(list(each) for each in zip(*found, strict=True))


class Head:
    """Keys and values as numbers; elements that are not finite are None."""

    def __init__(self, kv, k, v, k_scales, v_scales):
        self.kv, self.widths = kv, Widths(kv)
        self.bf16, self.bits = kv.format == "bf16", self.widths.operand
        self.k, self.v = ([[self.element(int(code)) for code in row] for row in rows] for rows in (k, v))
        self.k_scales, self.v_scales = ([0] * len(k) if self.bf16 else [int(code) - 127 for code in scales]
                                        for scales in (k_scales, v_scales))

    def element(self, code):
        """Value and last place of a code."""
        exponent, mantissa, bias = (8, 7, 127) if self.bf16 else (4, 3, 7)
        sign, field, rest = code >> exponent + mantissa, code >> mantissa & (1 << exponent) - 1, code % (1 << mantissa)
        if self.bf16 and field == 255 or not self.bf16 and code & 0x7F == 0x7F:
            return None, power(1 - bias - mantissa)
        lsb = power(max(field, 1) - bias - mantissa)
        return (-1) ** sign * (rest + (field > 0) * 2**mantissa) * lsb, lsb

    def attend(self, query, seen, sink, part):
        """Row, total, exponent of a query that sees some tokens."""
        broken = any(code >> 23 & 0xFF == 0xFF for code in query) or any(
            value is None for token in seen for value, _ in self.k[token] + self.v[token])
        broken |= not self.bf16 and any(128 in (self.k_scales[token], self.v_scales[token]) for token in seen)
        operands, place = self.shared([fp32(code) for code in query])
        scores = {token: self.score(operands, place, token) for token in seen}

        total = None if sink is None else (self.weight(sink), sink >> FRACTION)     # over 2**the exponent
        sums = [None] * self.kv.head_dim
        for start in range(0, len(self.k), self.widths.tokens):
            group = range(start, min(start + self.widths.tokens, len(self.k)))
            own = [token for token in group if token in scores]
            if own:
                top, more = self.share([scores[token] for token in own])
                total = self.total(total, more, top)
                weights = self.weights(scores, own)
                sums = [meet(old, self.column(weights, group, column)) for column, old in enumerate(sums)]

        if total is None:
            return [NAN if broken else 0] * len(sums), NAN if broken else 0, 0
        weight, exponent = total
        if broken:
            return [NAN] * len(sums), NAN, exponent
        values = [Fraction(0) if each is None else leading(nearer(*each), QUOTIENT) for each in sums]
        row = [value / power(exponent) if part else self.quotient(value, weight, exponent) for value in values]
        return [code(value) for value in row], code(weight), exponent

    def shared(self, values):
        """A query's elements, multiples of a last place that gives the largest `bits` bits; and that place."""
        largest = max(abs(value) for value in values)
        if not largest:
            return values, 1
        lsb = power(binade(largest) + 1 - self.bits)
        return [(-1 if value < 0 else 1) * min(to_nearest(abs(value), lsb), (2**self.bits - 1) * lsb)
                for value in values], lsb

    def score(self, operands, place, token):
        """A query's score of a token, in units of 2**-FRACTION."""
        total = None
        row, size = self.k[token], self.widths.elements
        for start in range(0, len(row), size):
            beat = range(start, min(start + size, len(row)))
            lsb = place * (max(row[n][1] for n in beat) / 2**GUARD if self.bf16 else power(-9))
            total = meet(total, (sum(to_zero(operands[n] * (row[n][0] or 0), lsb) for n in beat), lsb))
        most = 2 ** (WHOLE - 1 + FRACTION) - 1
        rounded = to_nearest(total[0] * power(self.k_scales[token] + FRACTION), 1)
        return max(-most, min(most, rounded))

    def weight(self, score):
        """2 ** the fraction of a score, in [1, 2)."""
        value = line(exp2_knots(self.bits + 1), Fraction(score % 2**FRACTION, 2**FRACTION))
        return min(to_nearest(value, power(1 - self.bits)), 2 - power(1 - self.bits))

    def share(self, scores):
        """What a group adds to the sum of all: the largest exponent, and the sum over its power."""
        top = max(score >> FRACTION for score in scores)
        return top, sum(to_nearest(self.weight(score) / power(top - (score >> FRACTION)), power(1 - self.bits - SHARE))
                        for score in scores)

    def total(self, total, more, top):
        """The sum of all, with a group's: (over 2**exponent, exponent)."""
        if total is None:
            return more, top
        most = max(total[1], top)
        return sum(to_nearest(value * power(exponent - most), power(1 - self.bits - SHARE))
                   for value, exponent in (total, (more, top))), most

    def weights(self, scores, tokens):
        """Powers of two of a group, with the scales of the values, and their last place."""
        exponents = {token: (scores[token] >> FRACTION) + self.v_scales[token] for token in tokens}
        lsb = power(max(exponents.values()) + 1 - self.bits)
        return {token: to_nearest(self.weight(scores[token]) * power(exponents[token]), lsb) for token in tokens}, lsb

    def column(self, weights, group, column):
        """The weighed sum of a group's values: (value, place)."""
        weights, place = weights
        values = {token: self.v[token][column] for token in group}
        if self.bf16:
            lsb = max(each for token in group for _, each in self.v[token]) * place / 2**GUARD    # seen or not
        else:
            lsb = place * power(-9)
        products = [weight * (values[token][0] or 0) for token, weight in weights.items()]
        lsb_kept = lsb * 2**self.widths.drop
        return down(sum(to_zero(each, lsb) for each in products), lsb_kept), lsb_kept

    def quotient(self, value, weight, exponent):
        """A mean."""
        fraction = leading(weight, QUOTIENT + 1) / power(binade(weight)) - 1
        reciprocal = to_nearest(line(reciprocal_knots(), fraction), power(-QUOTIENT))
        return value * reciprocal / power(exponent + binade(weight))


# numbers


def power(exponent):
    return Fraction(2**exponent) if exponent >= 0 else Fraction(1, 2**-exponent)


def binade(value):
    """The exponent of the largest power of two that is not above a magnitude."""
    value = abs(Fraction(value))
    guess = value.numerator.bit_length() - value.denominator.bit_length()
    return guess if power(guess) <= value else guess - 1


def to_nearest(value, place):
    """The nearest multiple of `place`, the higher one of two."""
    return floor(value / place + HALF) * place


def down(value, place):
    return floor(value / place) * place


def to_zero(value, place):
    return down(value, place) if value >= 0 else -down(-value, place)


def nearer(value, place):
    """A negative number a place nearer to zero: its magnitude as one's complement has it."""
    return value + place if value < 0 else value


def leading(value, bits):
    """The first bits of a number's magnitude, cut off."""
    return to_zero(value, power(binade(value) + 1 - bits)) if value else value


def meet(one, other):
    """The sum of two multiples of their places: the larger place holds for it, the other is rounded to it."""
    if one is None:
        return other
    place = max(one[1], other[1])
    return sum(to_nearest(value, place) for value, _ in (one, other)), place


def line(knots, at):
    """On the chord of the piece that has `at`, of [0, 1)."""
    piece = floor(at * PIECES)
    return knots[piece] + (knots[piece + 1] - knots[piece]) * (at * PIECES - piece)


def exp2_knots(places):
    """2 ** (n / 64), each the nearest multiple of 2**-places."""
    knots = []
    for n in range(PIECES + 1):
        root = 1 << n + PIECES * (places + 1)
        for _ in range(6):
            root = isqrt(root)
        knots.append(Fraction(root + 1 >> 1, 1 << places))
    return knots


def reciprocal_knots():
    """1 / (1 + n / 64), each the nearest multiple of 2**-QUOTIENT."""
    return [Fraction(round(Fraction(PIECES * 2**QUOTIENT, PIECES + n)), 2**QUOTIENT) for n in range(PIECES + 1)]


def fp32(code):
    """The value of an FP32 code; those that are subnormal or not finite are zeros."""
    field = code >> 23 & 0xFF
    magnitude = (code & 0x7FFFFF | 0x800000) * power(field - 150) if 0 < field < 0xFF else Fraction(0)
    return -magnitude if code >> 31 else magnitude


def code(value):
    """FP32, cut off: below its range zeros, beyond it infinities, either with a sign."""
    sign = (value < 0) << 31
    if not value:
        return 0
    exponent = binade(value) + 127
    if exponent <= 0:
        return sign
    if exponent >= 255:
        return sign | INFINITY
    return sign | exponent << 23 | int(leading(abs(value), 24) / power(binade(value) - 23)) - (1 << 23)
