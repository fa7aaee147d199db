# SPDX-License-Identifier: Apache-2.0
"""One port for all: everybody gets what is theirs, in time, whatever the memory does and whoever is reset."""

import os
import random
from collections import Counter, deque
from itertools import pairwise

import pytest

from hw.emit import Verilog
from hw.memory.channel import READS, WRITES, Channel, Turns
from sim.axi import DECERR, SLVERR
from sim.channel import SPACE, Burst, Job, mix, run
from sim.formal.cones import waits

DEEP = "DEEP" in os.environ
CHANNEL = Channel(34, 16, 32, 400)
WIDE = Channel(32, 64, 16, 400)


def sums(job):
    """Beats of each that a job asks for, by what the channel calls them."""
    return ({f"{name}.read": sum(burst.beats for burst in job.reads[name]) for name in READS}
            | {f"{name}.written": sum(burst.beats for burst in job.writes[name]) for name in WRITES})


@pytest.mark.parametrize("stall, wait, options", [
    (0.0, 0, {}), (0.0, 60, {"latency": 30}), (0.4, 0, {}), (0.4, 60, {"hesitant": True}), (0.0, 0, {"hesitant": True}),
])
@pytest.mark.parametrize("channel", [CHANNEL, WIDE], ids=lambda channel: channel.name)
def test_everybody_gets_what_is_theirs(channel, stall, wait, options):
    for seed in range(5 if DEEP else 1):
        job = mix(channel, f"{stall} {wait} {seed}", 50, wait=wait, stall=stall, **options)
        done = run(job, seed=seed)
        assert done.beats == sums(job) and done.died is None


def gaps(cycles):
    """Cycles between the first and the last in which there was nothing."""
    return cycles[-1] - cycles[0] + 1 - len(cycles)


def reading(channel, beats, counts, **options):
    """A job in which masters read so many bursts of so many beats, as fast as they can."""
    job = Job(channel, random.Random(1).randbytes(SPACE), **options)
    for name, count in counts.items():
        job.reads[name] = [Burst(n * beats * channel.beat % SPACE, beats) for n in range(count)]
    return job


@pytest.mark.parametrize("latency", [1, 40])
@pytest.mark.parametrize("beats", [1, 32])
def test_memory_is_never_idle(beats, latency):
    """While anybody asks, a beat comes in every cycle: whoever asks, one alone or all together."""
    for names in ["kv"], ["weights"], READS:
        done = run(reading(CHANNEL, beats, dict.fromkeys(names, 640 // beats), latency=latency))
        assert gaps(done.channels["r"]) == 0 and len(done.channels["r"]) == 640 * len(names)


def test_writes_follow_each_other():
    """One writer at the pace of its own port, two of them without a gap, in turns."""
    job = Job(CHANNEL, bytes(2 * SPACE))
    for n, name in enumerate(WRITES):
        job.writes[name] = [Burst(SPACE + (2 * burst + n) * 64, 4, words=[(burst, 0xFFFF)] * 4) for burst in range(50)]
    done = run(job)
    assert gaps(done.channels["w"]) <= 8
    order = sorted((cycle, name) for name in WRITES for cycle in done.gone[f"{name}.aw"])
    assert all(order[n][1] != order[n + 1][1] for n in range(len(order) - 1))


@pytest.mark.parametrize("wait", [0, 30])
@pytest.mark.parametrize("latency", [1, 40])
def test_turns(wait, latency):
    """The first goes first, unless another has waited for long; nobody waits for longer; weights give way."""
    job = mix(CHANNEL, f"turns {wait}", 300, most=32, wait=wait, latency=latency)
    done, late = run(job), Counter()
    waits = {name: deque(zip(done.asked[f"{name}.ar"], done.gone[f"{name}.ar"], job.reads[name], strict=True))
             for name in READS}
    came, owed = sorted(cycle for name in READS for cycle, _ in done.answers[f"{name}.r"]), 0
    passed, latest = dict.fromkeys(READS, 0), (0, 0)        # the burst before: when, and its beats
    for cycle, name in sorted((cycle, each) for each in READS for cycle in done.gone[f"{each}.ar"]):
        asking = [each for each in READS if waits[each] and waits[each][0][0] <= cycle]
        following = [each for each in asking if passed[each] == CHANNEL.SHARE]
        if following:
            assert name == following[0]
            late[name] += name != asking[0]
        else:
            assert name == asking[0]
            counted = owed - latest[1] * (latest[0] == cycle - 1)
            assert name != "weights" or counted - sum(each < cycle for each in came) < CHANNEL.ahead
        latest = cycle, waits[name].popleft()[2].beats
        owed += latest[1]
        for each in asking:
            passed[each] = 0 if each == name else min(passed[each] + 1, CHANNEL.SHARE)
    if not wait:
        assert late["weights"]


def test_weights_get_what_is_left():
    """One burst in nine while the KV cache reads as fast as it can."""
    job = reading(CHANNEL, 32, {"kv": 200, "weights": 200}, latency=20)
    done = run(job)
    end = done.answers["kv.r"][-1][0]
    share = sum(cycle < end for cycle, _ in done.answers["weights.r"]) / len(done.answers["kv.r"])
    assert 1 / (CHANNEL.SHARE + 2) < share < 1 / CHANNEL.SHARE + 0.05


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_a_flush_leaves_nothing_behind(stall):
    """At any moment; what comes afterwards is as if there had been none."""
    for seed in range(20 if DEEP else 2):
        rng = random.Random(f"{stall} {seed}")
        cycles, flushes = 20, []
        for _ in range(20):
            cycles += rng.choice([0, 3, rng.randrange(40), rng.randrange(300)])
            flushes.append(cycles)
        job = mix(rng.choice([CHANNEL, WIDE]), seed, 100, wait=rng.choice([0, 20]), stall=stall,
                  latency=rng.choice([1, 30]), flushes=tuple(flushes))
        done = run(job, seed=seed)
        assert len(done.drained) == 20 and done.died is None
        assert stall or max(done.drained) <= 4 * 256 + 2 * 256 + 60


def test_error_responses():
    errors = {(way, range(at, at + 0x800)): SLVERR if at & 0x2000 else DECERR
              for way, first in (("r", 0), ("b", SPACE)) for at in range(first, 2 * SPACE, 0x1000)}
    done = run(mix(CHANNEL, 3, 40, most=32, stall=0.2, errors=errors))
    for answers in done.answers.values():
        assert {failed for _, failed in answers} == {False, True}


@pytest.mark.parametrize("flushes", [(), (900, 2000)])
@pytest.mark.parametrize("way", ["ar", "r", "aw", "w", "b"])
def test_a_memory_that_is_silent_is_given_up(way, flushes):
    """Whoever has asked or asks is answered by errors at once, and a flush ends."""
    done = run(mix(CHANNEL, way, 100, stall=0.1, latency=10, deaf={way: 700}, flushes=flushes))
    assert 700 + CHANNEL.patience <= done.died
    assert not any(failed for answers in done.answers.values() for cycle, failed in answers if cycle < done.died)
    for name in "instructions.r", "load.r", "weights.r", "store.b":
        assert done.answers[name][-1][1]
    assert max(done.drained, default=0) < 1500


def test_a_slow_master_is_no_silent_memory():
    """Nobody is given up for data that do not come."""
    job = Job(CHANNEL, bytes(2 * SPACE), idle=0.998)
    job.writes["store"] = [Burst(SPACE, 12, words=[(n, 0xFFFF) for n in range(12)])]
    done = run(job, seed=2)
    assert max(after - before for before, after in pairwise(done.channels["w"])) > CHANNEL.patience
    assert done.died is None


def test_nothing_waits_for_ready():
    assert waits(Channel(32, 1, 1, 3)) == []


@pytest.mark.parametrize("sizes, sentence", [
    ((32, 24, 8, 100), "beat must be a power of two of bytes, up to 4096, not 24"),
    ((31, 16, 8, 100), "address_bits must be 32 to 64, not 31"),
    ((32, 16, 0, 100), "burst must be 1 to 256 beats, not 0"),
    ((32, 64, 128, 100), "burst must be 1 to 64 beats, not 128"),
    ((32, 16, 8, 0), "patience must be at least 1 cycle, not 0"),
])
def test_bad_sizes_are_refused(sizes, sentence):
    with pytest.raises(ValueError, match=f"^Channel: {sentence}$"):
        Channel(*sizes)


def test_bad_turns_are_refused():
    with pytest.raises(ValueError, match="^Turns: count must be at least 2, not 1$"):
        Turns(8, 1, 1)
    with pytest.raises(ValueError, match="^Turns: share must be at least 3, not 2$"):
        Turns(8, 4, 2)


@pytest.mark.parametrize("sizes", [(64, 128, 32, 1 << 24), (32, 1, 256, 1)])
def test_extreme_sizes_become_verilog(sizes):
    assert Verilog(Channel(*sizes)).modules
