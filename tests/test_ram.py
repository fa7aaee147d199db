# SPDX-License-Identifier: Apache-2.0

import pytest

from hw.emit import verilog
from hw.ram import Ram
from sim.run import simulate


@pytest.mark.parametrize("width, depth, granularity", [(8, 16, None), (33, 5, None), (24, 8, 8)])
def test_ram(width, depth, granularity):
    assert simulate(Ram(width, depth, granularity), "sim.benches.ram", env={"DEPTH": depth}, x_initial="unique") == 1


def test_ram_is_one_plain_memory():
    text = verilog(Ram(12, 40))
    assert "module ram_12x40(" in text
    assert "reg [11:0] words [39:0];" in text
    assert "initial" not in text
    assert "module ram_12x40_4(" in verilog(Ram(12, 40, 4))
    assert verilog(Ram(12, 40, 12)).endswith(text[text.index("module"):])


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="^Ram: width must be at least 1 bit, not 0$"):
        Ram(0, 8)
    with pytest.raises(ValueError, match="^Ram: depth must be at least 2 words, not 1$"):
        Ram(8, 1)
    with pytest.raises(ValueError, match="^Ram: granularity must divide the 8 bits of a word, not 3$"):
        Ram(8, 2, 3)
