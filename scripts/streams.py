# SPDX-License-Identifier: Apache-2.0
"""Figures of the KV cache's data side: streams and copies on the RTL, area and longest path."""

import contextlib
import random
import sys
from itertools import product

from golden.config import KV_FORMATS, KvCache, load
from golden.paging import Opcode
from hw.emit import Verilog
from hw.flow import asic, liberty
from hw.flow.figures import figure
from hw.flow.report import critical
from hw.kvcache.store import Store
from sim.dram import sequential
from sim.kvstore import Script, run
from sim.run import ROOT

__all__ = ["measure"]

STREAMS, CONTEXT = 8, 128
BEATS = 16, 32, 64          # bytes of the port
LONG = 12_000               # beats: as many as make a refresh more or less no difference
SMALL = {"blocks": 256, "table": 32, "layers": 1, "kv_heads": 2, "host_blocks": 2}
CHIP = load(ROOT / "configs" / "small.toml")


def measure(quick, library):
    """All figures, one by one.

    Parameters
    ----------
    quick : bool
        FP8 with heads of 64 elements in blocks of 16 tokens, 64 bytes a beat, and nothing synthesized.
    library : list of path
        Liberty files, or none.
    """
    shapes = [("fp8", 64, 16)] if quick else list(product(KV_FORMATS, (32, 64, 128), (8, 16, 32)))
    for format, head_dim, tokens in shapes:
        configs = [KvCache(**SMALL, format=format, head_dim=head_dim, block_tokens=tokens, beat=beat)
                   for beat in (BEATS[-1:] if quick else BEATS)]
        yield from _streams(configs, f"{format}.dh{head_dim}.tpb{tokens}")
    yield from _copies(KvCache(**SMALL))
    if library and not quick:
        yield from _area(library)


def _run(script, **options):
    with contextlib.redirect_stdout(sys.stderr):
        return run(script.done(**options))


def _contexts(config, *, shuffled=False):
    """A script with eight sequences; `shuffled`, their blocks lie anywhere, as they do after a while."""
    script, rng = Script(config, 1), random.Random(1)
    for sid in range(STREAMS):
        script.command(Opcode.ALLOC_SEQ, sid=sid)
    for _ in range(3 if shuffled else 1):
        for sid in rng.sample(range(STREAMS), STREAMS) if shuffled else ():
            script.command(Opcode.PREEMPT, sid=sid)
        parts = [sid for sid in range(STREAMS) for _ in range(CONTEXT // config.block_tokens)]
        if shuffled:
            rng.shuffle(parts)
        for sid in parts:
            script.command(Opcode.APPEND, sid=sid, tokens=config.block_tokens)
    script.wait()
    return script


def _stream_all(script, times=1):
    """Stream all sequences, all heads; the commands are queued. How many came before."""
    before = sum(isinstance(each, tuple) for each in script.job.log)
    for _ in range(times):
        for sid in range(STREAMS):
            script.command(Opcode.STREAM, sid=sid, layer=0, heads=3)
    return before


def _streams(configs, name):
    """Eight streams back to back, on ideal memories and on DRAM."""
    how = f"RTL, {STREAMS} streams of {CONTEXT} tokens and 2 heads back to back, first to last R beat"
    used, first, stalls = [], [], 0
    for config, latency in product(configs, (1, 64)):
        script = _contexts(config)
        before = _stream_all(script)
        done = _run(script, latency=latency)
        beats = done.channels["r"]
        used.append(100 * len(beats) / (beats[-1] - beats[0] + 1))
        first.append(done.channels["ar"][0] - done.commands[before])
        stalls += _starved(done)
    config = configs[-1]
    whole = config.segment_beats(config.block_tokens)
    ports = " to ".join(f"{each}" for each in sorted({configs[0].beat, config.beat}))
    yield figure(f"kvcache.stream.ideal.{name}", round(min(used), 3), "%",
                 f"{how}, {ports} bytes a beat, latency 1 and 64, the worst", 95, ">=")
    yield figure(f"kvcache.stream.scales.{name}", round(100 * config.scale_beats / whole, 3), "%",
                 f"counted, scales among the beats, {config.beat} bytes each")
    yield figure(f"kvcache.stream.first_ar.{name}", max(first), "cycle",
                 "RTL, nothing under way, STREAM taken to first AR", 8, "<=")
    yield figure(f"kvcache.stream.table_stalls.{name}", stalls, "cycle",
                 "RTL, between first and last R beat, nothing asked for", 0, "==")
    if whole * config.beat >= 1024:
        script = _contexts(config, shuffled=True)
        _stream_all(script, -(-LONG // len(beats)))
        beats = _run(script, dram=CHIP.dram).channels["r"]
        rate = 100 * len(beats) / (beats[-1] - beats[0] + 1)
        linear = 100 * len(beats) / sequential(CHIP.dram, config.beat, len(beats), config.burst, config.buffer)
        yield figure(f"kvcache.stream.dram.{name}", round(rate, 3), "%",
                     f"RTL, as above, blocks anywhere; model of {CHIP.dram.part}")
        yield figure(f"kvcache.stream.dram_linear.{name}", round(linear, 3), "%",
                     "the same model, as many beats at consecutive addresses")
        yield figure(f"kvcache.stream.dram_share.{name}", round(100 * rate / linear, 3), "%",
                     "the former of the latter", 97.5, ">=")


def _starved(done):
    """Cycles between the first and the last beat in which none was under way."""
    asked = dict(zip(done.channels["ar"], (beats for _, beats in done.reads), strict=True))
    came, under_way, count = set(done.channels["r"]), 0, 0
    for cycle in range(done.channels["ar"][0], done.channels["r"][-1]):
        under_way += asked.get(cycle, 0) - (cycle in came)
        count += under_way == 0 and cycle >= done.channels["r"][0]
    return count


def _copies(config):
    """A copy on write of half a block: alone, and while streams are read."""
    slots = config.block_tokens // 2

    def copy(script):
        script.command(Opcode.APPEND, sid=0, tokens=slots)
        script.command(Opcode.PREEMPT, sid=7)
        script.command(Opcode.FREE, sid=7)
        script.wait(quiet=True)
        script.command(Opcode.FORK, sid=0, target=7)

    script = _contexts(config)
    copy(script)
    script.command(Opcode.APPEND, sid=7, tokens=1)
    done = _run(script)
    beats = config.segments * config.segment_beats(slots)
    yield figure("kvcache.cow.beats", len(done.channels["w"]), "beat", f"RTL, written, {slots} slots used", beats, "==")
    yield figure("kvcache.cow.cycles", done.channels["w"][-1] - done.commands[-1] + 1, "cycle",
                 "RTL, APPEND taken to last W beat, latency 1")

    script = _contexts(config)
    copy(script)
    for number in range(3):
        for sid in range(1, STREAMS - 1):
            script.command(Opcode.STREAM, sid=sid, layer=0, heads=3)
        if number == 0:
            script.command(Opcode.APPEND, sid=7, tokens=1)
    done = _run(script)
    cycles = [cycle for cycle, id in zip(done.channels["r"], done.returned, strict=False) if id]
    first, last = cycles[0], max(cycles[-1], done.channels["w"][-1])
    own = sum(first <= cycle <= last for cycle, id in zip(done.channels["r"], done.returned, strict=False) if not id)
    yield figure("kvcache.cow.foreground", round(100 * own / (last - first + 1), 3), "%",
                 "RTL, R beats of streams from the copy's first R to its last W beat", 90, ">=")
    yield figure("kvcache.cow.cycles_beside_streams", last - first + 1, "cycle", "RTL, the same")


def _area(library):
    """Of the data side for a model of 1B parameters, and its longest path."""
    cells, store = liberty.read(library), Store(CHIP.kvcache)
    report = asic.synthesize(Verilog(store).text, store.name, cells, asic.SPEED)
    how = f"synthesis, speed recipe, {cells.name}, {store.config.beat} bytes a beat"
    yield figure("kvcache.store.ge.1b", round(report.ge), "GE", f"{how}; logic without memories")
    yield figure("kvcache.store.memory_bits.1b", report.total("bits"), "bit", "counted")
    yield figure("kvcache.store.path_ps.1b", round(critical(report)[0].length), "ps",
                 f"{how}, clk-q and setup included, no wires", 1400, "<=")
