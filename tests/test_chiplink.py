# SPDX-License-Identifier: Apache-2.0
"""The chip link: frames, its reference, one side against that, and two sides with bad lines between them."""

import itertools
import os
import random
import zlib

import pytest

from golden.chiplink import Frame, Side, decode, encode, seed, split, step
from golden.framing import FLAG, RESIDUE, Error
from hw.noc.chiplink import Chiplink
from sim.chiplink import CHANCE, SIDES, Job, Pair, play
from sim.run import simulate

DEEP = "DEEP" in os.environ
PATIENCE = 20_000
LOSS, ERRORS = (round(chance * (1 << CHANCE)) for chance in (0.10, 0.01))      # of a frame, of a bit


def test_crc_is_that_of_zlib():
    rng = random.Random(1)
    for length in range(1, 100):
        key, content = (rng.randrange(256), rng.randrange(256)), rng.randbytes(length)
        state = seed(*key)
        for byte in content:
            state = step(state, byte)
        assert state ^ 0xFFFF_FFFF == zlib.crc32(content, zlib.crc32(bytes(key)))
        for byte in zlib.crc32(bytes(key) + content).to_bytes(4, "little"):
            state = step(state, byte)
        assert state == RESIDUE


def test_frames_are_what_zlib_and_a_naive_reader_say():
    frame = Frame(vc=2, seq=0x7E, flits=[bytes(range(0x78, 0x81)), bytes(9)], status_vc=1, freed=0x7D, map=0x8001)
    line = encode(frame, 16, (3, 4))
    assert line.count(FLAG) == 1 and line[-1] == FLAG
    content = line[:-1].replace(b"\x7d\x5e", b"\x7e").replace(b"\x7d\x5d", b"\x7d")
    assert content[:-4] == bytes([2 << 2 | 1 << 4, 0x7E, *range(0x78, 0x81), *bytes(9), 0x7D, 0x01, 0x80])
    assert int.from_bytes(content[-4:], "little") == zlib.crc32(bytes([3, 4]) + content[:-4])
    assert decode(line[:-1], 9, 16, (3, 4)) == frame
    assert decode(line[:-1], 9, 16, (4, 3)) is None     # of another session


def test_up_to_two_wrong_bits_and_short_frames_are_noticed():
    line = encode(Frame(seq=5, flits=[b"nine byte"], freed=1, map=3), 16, (1, 2))
    bits = range(8 * (len(line) - 1))
    for wrong in itertools.chain(itertools.combinations(bits, 1), itertools.combinations(bits, 2)):
        damaged = bytearray(line)
        for bit in wrong:
            damaged[bit // 8] ^= 1 << bit % 8
        frames, _ = split(damaged)
        assert all(decode(frame, 9, 16, (1, 2)) is None for frame in frames)
    assert all(decode(line[:n], 9, 16, (1, 2)) is None for n in range(len(line) - 1))


def test_reference_delivers_each_flit_once_and_in_order():
    """Over lines that lose a frame in three, and let others overtake."""
    rng, sides, lines = random.Random(1), [Side(9, 3, 8, session) for session in (5, 5)], ([], [])
    sent, came = ([[[] for _ in range(3)] for _ in sides] for _ in range(2))
    for time in range(8_000):
        for n, side in enumerate(sides):
            vc = rng.randrange(3)
            if side.room(vc) and time < 6_000:
                flit = rng.randbytes(9)
                side.put(vc, flit)
                sent[n][vc].append(flit)
            if rng.random() < 0.5 and (flit := side.take(vc)):
                came[n][vc].append(flit)
            if time % 10 == 0:
                side.expire()
            line = lines[n]
            if frame := side.frame(4):
                line.insert(max(len(line) - rng.choice((0, 0, 0, 3)), 0), frame[:-1])
            while len(line) > 5:
                frame = line.pop(0)
                if rng.random() > 1 / 3:
                    sides[1 - n].receive(frame)
    assert came == sent[::-1] and sum(map(len, sent[0])) > 500
    assert all(side.error == Error.NONE for side in sides)


@pytest.mark.parametrize("args", [(128, 3, 2, 8), *([(64, 1, 8, 16), (64, 2, 4, 16), (256, 4, 4, 64)] if DEEP else [])])
def test_one_side_talks_to_the_reference(args):
    env = {"ARGS": " ".join(map(str, args)), "COUNT": 3000 if DEEP else 200}
    assert simulate(Chiplink(*args, patience=6000), "sim.benches.chiplink", env=env) == 6


def complete(result, limit, pair):
    """Each flit came once and in order."""
    assert not any(result[f"wrong_{side}"] for side in SIDES), result
    assert all(result[f"complete_{side}"] for side in SIDES), result
    assert all(result[f"count_{side}"] == pair.vcs * limit for side in SIDES), result


@pytest.fixture(scope="module")
def results():
    """All jobs, one simulation."""
    pair = Pair(2, 4, patience=PATIENCE)
    return pair, {name: (job, result) for (name, job), result in zip(JOBS.items(), play(pair, list(JOBS.values())),
                                                                    strict=True)}


BAD = {"loss": LOSS, "errors": ERRORS, "burst": 1, "timeout": 160, "step": 1000}
JOBS = {
    "ideal": Job(200, ideal=1),
    "bad": Job(50_000 if DEEP else 5_000, **BAD),
    "worse": Job(10_000 if DEEP else 300, **{**BAD, "late": 100, "stall": 2, "hold": 900, "timeout": 400}, seed=2),
    "lossy": Job(50_000 if DEEP else 2_000, loss=LOSS, late=50, seed=3),
    "stalled": Job(2_000 if DEEP else 200, hold=1020, idle=800, loss=LOSS, seed=4),
    "cut": Job(1_500, loss=LOSS, seed=5, events={
        3_000: {"cut_left": 1}, 40_000: {"cut_left": 0}, 45_000: {"clear_left": 1, "clear_right": 1},
        45_010: {"clear_left": 0, "clear_right": 0}}),
    **{f"reset at {cycle}": Job(400, loss=LOSS, late=50, seed=cycle, events={
        cycle: {"reset_left": 1, "epoch_left": 1, "resume_left": 1}, cycle + 3: {"reset_left": 0}})
       for cycle in (900, 3_000, 3_400, *(range(1_200, 5_000, 50) if DEEP else ()))},
}


@pytest.mark.parametrize("name", ["ideal", "bad", "worse", "lossy", "stalled"])
def test_each_flit_comes_once_and_in_order(name, results):
    pair, done = results
    job, result = done[name]
    complete(result, job.limit, pair)
    assert not any(result[f"error_{side}"] for side in SIDES)


def test_a_dead_line_is_told_of_and_loses_nothing(results):
    pair, done = results
    job, result = done["cut"]
    before, cut, late, _ = result["seen"]
    assert not any(before[f"error_{side}"] for side in SIDES)
    assert all(cut[f"error_{side}"] == late[f"error_{side}"] == Error.DEAD for side in SIDES)
    complete(result, job.limit, pair)
    assert not any(result[f"error_{side}"] for side in SIDES)


@pytest.mark.parametrize("name", [name for name in JOBS if name.startswith("reset")])
def test_a_reset_of_one_side_is_told_of_and_both_carry_on(name, results):
    """All that comes afterwards comes once and in order; from the side that was reset, everything comes."""
    _, done = results
    _, result = done[name]
    assert not any(result[f"wrong_{side}"] for side in SIDES), result
    assert all(result[f"complete_{side}"] and result[f"up_{side}"] for side in SIDES), result
    assert (result["error_left"], result["error_right"]) == (Error.NONE, Error.RESTART)


def test_sizes_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="^Chiplink: vcs must be 1 to 4, not 5$"):
        Chiplink(64, 5, 4)
    with pytest.raises(ValueError, match="^Chiplink: slots must be a power of two, 4 to 64, not 12$"):
        Chiplink(64, 2, 4, slots=12)
    with pytest.raises(ValueError, match="^Chiplink: a flit of 72 bits must be longer than what follows the flits of a "
                                         "frame, which is 9 bytes with 32 slots$"):
        Chiplink(64, 2, 4, slots=32)
