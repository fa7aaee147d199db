# SPDX-License-Identifier: Apache-2.0
"""The host port, its registers, and the counters behind it."""

import subprocess

import pytest

from golden.registers import REGISTERS, header, page
from hw.tile.counters import Counters
from hw.tile.host import Host
from sim.run import simulate


def test_host():
    assert simulate(Host(), "sim.benches.host") == 3


@pytest.mark.parametrize("count", [5, 40])
def test_counters(count):
    assert simulate(Counters(count, 20), "sim.benches.counters", x_initial="unique") == 1


def test_counters_of_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="^Counters: count must be 4 to 256, not 3$"):
        Counters(3)


def test_fields_do_not_overlap():
    addresses = [each.address for each in REGISTERS]
    assert len(set(addresses)) == len(addresses) and all(address % 4 == 0 for address in addresses)
    for each in REGISTERS:
        taken = [bit for field in each.fields for bit in range(field.at, field.at + field.bits)]
        assert len(set(taken)) == len(taken) and max(taken) < 32, each.name


def test_header_compiles(tmp_path):
    (tmp_path / "poblano.h").write_text(header())
    (tmp_path / "main.cpp").write_text(
        '#include "poblano.h"\nstatic_assert(POBLANO_ADDRESS == 0x20);\n'
        "static_assert(POBLANO_STATUS_PC_MASK == 0xffff0000 && POBLANO_STATUS_PC_SHIFT == 16);\nint main() {}\n")
    subprocess.run(["g++", "-fsyntax-only", str(tmp_path / "main.cpp")], check=True)


def test_page_names_everything():
    text = page()
    for each in REGISTERS:
        assert all(f"<td>{name}</td>" in text for name in (each.name, *(field.name for field in each.fields)))
