# SPDX-License-Identifier: Apache-2.0
"""The DRAM model against times worked out by hand from its parameters."""

import random
import subprocess

import pytest

from golden.config import Dram as Config
from sim.dram import Dram, sequential
from sim.run import ROOT
from sim.tile import part

CONFIG = Config(trefi=1e9)      # no refresh, unless said
BEAT = 64


def arrivals(config, *bursts, cycles=4000):
    """Cycles in which the beats of some reads, all asked for at once, come back."""
    dram, times = Dram(config, BEAT), []
    for address, beats in bursts:
        dram.read(address, beats)
    for cycle in range(1, cycles):
        times += [cycle] * dram.step()
    return times, dram


def test_a_first_read_opens_its_row():
    """Activated in cycle 1, read tRCD later, back RL and a beat after that: 5 + 18, 20 + 5, in cycles of 5 ns."""
    times, dram = arrivals(CONFIG, (0, 4))
    assert times == [1 + 4 + 5 + n for n in range(4)]
    assert (dram.misses, dram.hits) == (1, 3)


def test_pages_in_order_are_opened_ahead():
    times, dram = arrivals(CONFIG, (0, 1024))
    assert times[-1] - times[0] == 1023 and dram.misses == 16


def test_another_row_of_a_bank_waits():
    """From activation to activation tRAS and tRP: 42 + 18, each in whole cycles."""
    other = CONFIG.page * CONFIG.banks + CONFIG.page        # row 1, bank 1 ^ 1
    times, _ = arrivals(CONFIG, (0, 1), (other, 1))
    assert times[1] - times[0] == 9 + 4


def test_a_bank_that_waits_lets_others_pass():
    other = CONFIG.page * CONFIG.banks + CONFIG.page
    alone, _ = arrivals(CONFIG, (0, 32), (other, 32))
    filled, _ = arrivals(CONFIG, (0, 32), (other, 32), (CONFIG.page, 32))
    assert filled[-1] - alone[-1] < 32 - 8


def test_refresh_closes_all():
    config = Config(trefi=1000.0)
    dram = Dram(config, BEAT)
    dram.read(0, 2000)
    count = sum(dram.step() for _ in range(2000))
    assert dram.refreshes == 10 and dram.misses >= 10
    assert count < 2000 * (1 - (config.trfc + config.trpab) / 1000)


def test_writes_turn_the_bus():
    dram = Dram(CONFIG, BEAT)
    dram.read(0, 100)
    dram.write(CONFIG.page, 40)
    cycles = 0
    while dram.next < 100:
        dram.step()
        cycles += 1
    assert dram.turns == 2 and cycles > 140 + (CONFIG.trtw + CONFIG.wl + CONFIG.twtr) / CONFIG.cycle


@pytest.mark.parametrize("seed", range(3))
def test_every_beat_comes_once(seed):
    rng, dram, asked = random.Random(seed), Dram(Config(), BEAT), 0
    for _ in range(300):
        beats = rng.randrange(1, 40)
        (dram.read if rng.random() < 0.8 else dram.write)(rng.randrange(1 << 16) * BEAT, beats)
    asked = dram.numbers
    assert sum(dram.step() for _ in range(60_000)) == asked and not dram.active and not dram.writes
    assert dram.hits + dram.misses > asked


def test_a_linear_read_loses_what_refresh_takes():
    config = Config()
    used = 20_000 / sequential(config, BEAT, 20_000, 64, 256)
    assert 0.93 < used < 1 - (config.trfc + config.trpab) / config.trefi


TWIN = """
#include <cstdio>
#include "dram.h"
int main() {
    Dram dram;
    char kind;
    unsigned long long address;
    int beats;
    while (scanf(" %c %llu %d", &kind, &address, &beats) == 3) {
        if (kind == 'r') dram.read(address, beats);
        if (kind == 'w') dram.write(address, beats);
        if (kind == 's') printf("%d ", dram.step());
    }
}
"""


@pytest.mark.parametrize("locality", [0.0, 0.9])
def test_boards_in_cpp_have_the_same(tmp_path, locality):
    """Cycle by cycle, of random reads and writes, near each other and far apart."""
    config, rng, beat, address = Config(queue=16), random.Random(3), 16, 0
    (tmp_path / "board.h").write_text(f"#pragma once\nconstexpr int BEAT = {beat};\n{part(config)}")
    (tmp_path / "twin.cpp").write_text(TWIN)
    subprocess.run(["g++", "-std=c++20", "-O1", f"-I{tmp_path}", f"-I{ROOT / 'sim'}", str(tmp_path / "twin.cpp"),
                    "-o", str(tmp_path / "twin")], check=True)
    dram, orders, wanted = Dram(config, beat), [], []
    for _ in range(20000):
        if rng.random() < 0.08:
            address = address + 64 * beat if rng.random() < locality else rng.randrange(1 << 20) * beat
            kind, beats = rng.choice("rrw"), rng.randrange(1, 33)
            getattr(dram, {"r": "read", "w": "write"}[kind])(address, beats)
            orders.append(f"{kind} {address} {beats}")
        orders.append("s 0 0")
        wanted.append(dram.step())
    found = subprocess.run([tmp_path / "twin"], input="\n".join(orders), text=True, capture_output=True, check=True)
    assert list(map(int, found.stdout.split())) == wanted
    assert sum(wanted) > 5000 and dram.refreshes > 10 and dram.turns > 10
