# SPDX-License-Identifier: Apache-2.0
"""Weights are read ahead, come in order, and only to whom they belong."""

import os
import random

import pytest

from golden.config import Dram
from golden.transfer import Error
from hw.emit import Verilog
from hw.memory.weights import Weights
from sim.axi import SLVERR
from sim.dram import sequential
from sim.formal.cones import waits
from sim.weights import Job, expected, run

DEEP = "DEEP" in os.environ
SIZES = {"narrow": (8, 32, 1024, 16, 34), "equal": (16, 16, 512, 8, 34), "wide": (32, 8, 1024, 4, 34)}
SMALL = (16, 32, 2048, 32, 34)


def job(sizes, seed, instructions, *, faulty=0.0, **options):
    """Random instructions, and requests for all of it."""
    channel, port, prefetch, _, most = sizes
    rng, word = random.Random(seed), max(channel, port)
    made = Job(sizes, rng.randbytes(1 << 16), **options)
    left = []           # runs that requests are to take
    for _ in range(instructions):
        size = word * rng.choice([1, 2, rng.randint(1, 20), rng.randint(1, 2 * prefetch // word)])
        source = word * rng.randrange((len(made.data) - size) // word)
        if rng.random() < faulty:
            source, size = rng.choice([(source + word // 2, size), (source, size + 1), (source, 0)])
        else:
            left.append((source, size))
        made.instructions.append((source, size))
    for source, size in left:
        at = source
        while at < source + size:
            beats = min(rng.randint(1, most), (source + size - at) // port)
            wrong = rng.choice([port, 1, -port]) if rng.random() < faulty else 0
            made.requests.append((at + wrong if at else at, beats))
            at += beats * port
    return made


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("name", SIZES)
def test_all_beats_come_in_order(name, stall):
    for seed in range(4 if DEEP else 1):
        given = job(SIZES[name], f"{name} {seed}", 60, stall=stall, faulty=0.2, latency=20 if seed % 2 else 1)
        done = run(given, seed=seed)
        assert (done.done, done.beats) == expected(given)
        assert set(done.done) == {Error.NONE, Error.ALIGNMENT, Error.DIMENSION}


def linear(sizes, beats, count, **options):
    """`count` instructions of so many beats of memory each, and requests of the most beats for all of it."""
    channel, port, _, _, most = sizes
    size = beats * channel * count
    made = Job(sizes, random.Random(1).randbytes(max(size, 1 << 16)), **options)
    made.instructions = [(n * beats * channel, beats * channel) for n in range(count)]
    made.requests = [(at, min(most * port, size - at) // port) for at in range(0, size, most * port)]
    return made


def played(given, **options):
    """What came of a job in which nothing fails."""
    done = run(given, **options)
    assert (done.done, done.beats) == expected(given)
    return done


def gaps(cycles):
    """Cycles between the first and the last in which there was nothing."""
    return cycles[-1] - cycles[0] + 1 - len(cycles)


@pytest.mark.parametrize("latency, beats, count", [(1, 2048, 2), (40, 2048, 2), (1, 32, 40), (25, 32, 40)])
def test_the_channel_is_never_idle(latency, beats, count):
    """As long as beats leave, one comes in every cycle, whatever the latency, also from one instruction to the next."""
    done = played(linear(SMALL, beats, count, latency=latency))
    assert gaps(done.read) == 0 and done.full == 0
    assert done.empty <= len(done.read) // 2 + latency + 20       # a beat needs two of memory
    assert done.asked[0] <= 8


@pytest.mark.parametrize("name", SIZES)
def test_reads_stop_when_the_memory_is_full_and_beats_leave_one_a_cycle(name):
    sizes = channel, port, prefetch, burst, most = SIZES[name]
    given = linear(sizes, 2 * prefetch // channel, 1, patient=500)
    done = played(given)
    assert len([cycle for cycle in done.read if cycle < done.served[0]]) == prefetch // channel
    assert gaps(done.served[:prefetch // port]) == 0
    assert done.full > 300 and all(id == 4 and beats == burst for id, beats in done.reads)


def test_rate_on_a_dram():
    """As fast as a plain linear read."""
    beats, dram = 4096, Dram(cycle=1.25)
    done = played(linear(SMALL, beats, 1, dram=dram))
    assert done.read[-1] - done.read[0] + 1 <= 1.01 * sequential(dram, 16, beats, 32, 64)


@pytest.mark.parametrize("name", SIZES)
def test_what_is_cleared_is_forgotten(name):
    """At any moment: all instructions are done, all requests answered; and then everything begins anew."""
    rng = random.Random(name)
    for cycles in rng.sample(range(1, 400), 40 if DEEP else 5):
        given = job(SIZES[name], cycles, 40, stall=rng.choice([0.0, 0.4]), latency=rng.choice([1, 30]), cleared=cycles)
        played(given, seed=cycles)


@pytest.mark.parametrize("name", SIZES)
def test_a_reset_and_a_flush_of_the_channel(name):
    """At any moment: what was on its way does not get into what comes afterwards."""
    rng = random.Random(name)
    for cycles in rng.sample(range(1, 400), 40 if DEEP else 3):
        given = job(SIZES[name], cycles, 20, latency=rng.choice([1, 60]), flushed=cycles)
        played(given, seed=cycles, x_initial="unique")


def test_nothing_waits_for_ready():
    assert waits(Weights(2, 4, 16, 2, 4)) == []


def test_bus_errors_belong_to_their_instruction():
    given = linear(SMALL, 64, 8, stall=0.3, errors={("r", range(3 * 1024 + 512, 3 * 1024 + 528)): SLVERR})
    done = run(given)
    assert done.done == [Error.NONE] * 3 + [Error.BUS] + [Error.NONE] * 4
    assert done.beats == expected(given)[1] and not done.dead


@pytest.mark.parametrize("channel", ["ar", "r"])
def test_a_memory_that_is_silent(channel):
    given = linear(SMALL, 128, 8, deaf={channel: 300})
    done = run(given)
    assert done.dead and len(done.beats) == len(expected(given)[1])
    failed = done.done.index(Error.BUS)
    assert done.done == [Error.NONE] * failed + [Error.BUS] * (8 - failed) and failed in (1, 2, 3)


@pytest.mark.parametrize("sizes", [(128, 16, 1 << 20, 32, 1), (8, 1, 512, 1, 3), (8, 1024, 1 << 16, 256, 1028)])
def test_extreme_sizes_become_verilog(sizes):
    assert Verilog(Weights(*sizes)).modules


@pytest.mark.parametrize("sizes, sentence", [
    ((24, 32, 1024, 8, 4), "channel must be a power of two, not 24"),
    ((16, 20, 1024, 8, 4), "port must be a power of two, not 20"),
    ((16, 32, 1000, 8, 4), "prefetch must be a power of two, not 1000"),
    ((16, 32, 1024, 0, 4), "burst must be a power of two, not 0"),
    ((16, 32, 1 << 16, 512, 4), "burst must be 256 beats of 16 bytes at most, not 512"),
    ((64, 32, 1 << 16, 128, 4), "burst must be 64 beats of 64 bytes at most, not 128"),
    ((16, 32, 512, 32, 4), "prefetch must be at least 1024 bytes, two bursts and two beats, not 512"),
    ((8, 4, 1 << 20, 32, 4), "prefetch must be at most 524288 bytes, not 1048576"),
    ((16, 32, 1024, 8, 0), "beats must be at least 1, not 0"),
])
def test_bad_sizes_are_refused(sizes, sentence):
    with pytest.raises(ValueError, match=f"^Weights: {sentence}$"):
        Weights(*sizes)
