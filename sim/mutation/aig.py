# SPDX-License-Identifier: Apache-2.0
"""And-inverter graphs, as AIGER has them: two settings of one design, compared state for state."""

import re
from pathlib import Path

__all__ = ["Aig"]


class Aig:
    """What Yosys writes of a design, with symbols.

    Parameters
    ----------
    path : Path
        A binary AIGER file.
    """

    def __init__(self, path):
        self._text = Path(path).read_bytes()
        self._at = 0
        _, self.inputs, self.latches, outputs, ands, *more = map(int, self._line()[1:])
        bad, constraints = (*more, 0, 0)[:2]
        found = [int(self._line()[0]) for _ in range(self.latches + outputs + bad + constraints)]
        self.outputs, self.constraints = found[:self.latches + outputs], found[self.latches + outputs + bad:]
        self.ands, literal = [], 2 * (self.inputs + self.latches)
        for _ in range(ands):
            literal += 2
            left = literal - self._number()
            self.ands.append((left, left - self._number()))
        self.names = {int(n): name.decode() for n, name in re.findall(rb"(?m)^i(\d+) (.+)$", self._text[self._at:])}

    def _line(self):
        line = self._text[self._at:self._text.index(b"\n", self._at)]
        self._at += len(line) + 1
        return line.split()

    def _number(self):
        number = shift = 0
        while True:
            byte = self._text[self._at]
            self._at += 1
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def difference(self, name, number, path):
        """Write what tells apart whether input `name` is 0 or a number; return whether there is anything.

        It has one output: some output or next state differs, from equal states and inputs that keep the constraints.
        """
        control = {n: int(match[1]) for n, each in self.names.items()
                   if (match := re.fullmatch(rf"{name}\[(\d+)\]", each))}
        free = [n for n in range(self.inputs + self.latches) if n not in control]
        gates = {}

        def both(left, right):
            left, right = max(left, right), min(left, right)
            if right == 0 or left == right ^ 1:
                return 0
            if right == 1 or left == right:
                return left
            return gates.setdefault((left, right), 2 * (len(free) + len(gates) + 1))

        def built(chosen):
            literals = [0] * (self.inputs + self.latches + 1)
            for n, bit in control.items():
                literals[n + 1] = chosen >> bit & 1
            for place, n in enumerate(free):
                literals[n + 1] = 2 * (place + 1)
            for left, right in self.ands:
                literals.append(both(literals[left >> 1] ^ left & 1, literals[right >> 1] ^ right & 1))
            return lambda each: literals[each >> 1] ^ each & 1

        one, other = built(0), built(number)
        kept, equal = 1, 1
        for each in self.constraints:
            kept = both(kept, one(each))
        for left, right in {(one(each), other(each)) for each in self.outputs}:
            unequal = both(both(left, right) ^ 1, both(left ^ 1, right ^ 1) ^ 1)
            equal = both(equal, unequal ^ 1)
        differs = both(kept, equal ^ 1)
        body = b"".join(_bytes(2 * (len(free) + n) - left) + _bytes(left - right)
                        for n, (left, right) in enumerate(gates, 1))
        head = f"aig {len(free) + len(gates)} {len(free)} 0 1 {len(gates)}\n{differs}\n"
        Path(path).write_bytes(head.encode() + body)
        return differs != 0


def _bytes(number):
    """A number as AIGER has it, seven bits a byte."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
