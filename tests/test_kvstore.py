# SPDX-License-Identifier: Apache-2.0
"""The KV cache's memory: rows rounded as fractions say, and every byte where it belongs."""

import os
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from golden import kvstore
from golden.config import ConfigError, KvCache, load
from golden.formats import E4M3, decode
from golden.kvstore import checksum, quantize
from golden.paging import Move, Opcode, Part, Status, unpack
from hw.emit import Verilog
from hw.kvcache.store import Store
from sim.axi import DECERR, SLVERR
from sim.kvstore import Script, run, traffic

DEEP = "DEEP" in os.environ
FAULT = {"status": 8, "sid": 16, "place": 32, "host": 1, "write": 1}


def rows(seed, shape, special=0.0):
    """FP32 codes of all magnitudes within a row's own binade, and some that are not finite."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * np.exp2(rng.integers(-140, 120, (*shape[:-1], 1)))
    codes = values.astype(np.float32).view(np.uint32)
    odd = rng.choice([0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF, 0x00000001, 0x807FFFFF, 0x80000000], shape)
    return np.where(rng.random(shape) < special, odd, codes).astype(np.uint32)


def fraction(code):
    """The value of an FP32 code, subnormals being zero."""
    exponent = code >> 23 & 0xFF
    magnitude = Fraction(0x800000 | code & 0x7FFFFF) * Fraction(2) ** (exponent - 150) if exponent else Fraction(0)
    return -magnitude if code >> 31 else magnitude


@pytest.mark.parametrize("special", [0.0, 0.1])
def test_fp8_rows_against_fractions(special):
    given = rows(1, (300, 8), special)
    codes, scales, nans = quantize("fp8", given)
    finite = (given >> 23 & 0xFF) != 0xFF
    assert nans == np.count_nonzero(~finite) and (codes[~finite] == E4M3.nan).all()
    values = [Fraction(value) if np.isfinite(value) else None for value in decode(E4M3, np.arange(256)).tolist()]
    for row, quantized, code, sound in zip(given.tolist(), codes, scales.tolist(), finite, strict=True):
        exact = [fraction(each) for each in row]
        amax = max((abs(each) for each, good in zip(exact, sound, strict=True) if good), default=Fraction(0))
        scale = Fraction(2) ** (code - 127)
        assert amax <= 448 * scale and (code == 0 or amax > 448 * scale / 2)        # ceil rule
        for each, found, good, bits in zip(exact, quantized, sound, row, strict=True):
            if good:
                ordered = sorted((abs(each / scale - value), n & 1, n) for n, value in enumerate(values)
                                 if value is not None and n >> 7 == bits >> 31)
                assert ordered[0][2] == found


def test_bf16_rows_against_ml_dtypes():
    given = rows(2, (300, 16), 0.1)
    codes, scales, nans = quantize("bf16", given)
    flushed = np.where(given & 0x7F800000, given, given & 0x80000000).astype(np.uint32)
    other = flushed.view(np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)
    bad = other & 0x7F80 == 0x7F80
    assert (codes == np.where(bad, 0x7FC0, other)).all() and nans == bad.sum() and not scales.any()
    assert quantize("bf16", np.uint32([[0x7F7FFFFF]]))[2] == 1        # rounds past the largest


def test_checksum():
    assert checksum([*b"123456789"]) == 0xDF and checksum([0] * 10) != 0       # the catalogue's check value
    assert (checksum([[*b"123456789"], [*b"987654321"]]) == [0xDF, checksum([*b"987654321"])]).all()


def test_bytes_of_a_block():
    """Every byte of what was written where docs/kvcache.md draws it, and no other."""
    config = KvCache(blocks=4, block_tokens=4, layers=2, kv_heads=2, head_dim=24, format="fp8", beat=16, lanes=8)
    store = kvstore.Store(config)
    k, v = rows(3, (3, 2, 24)), rows(4, (3, 2, 24))
    store.write([(1, 3, 1), (3, 0, 2)], 1, k, v)
    image = store.pool.reshape(-1)
    expected = np.zeros_like(image)
    for token, (block, slot) in enumerate([(1, 3), (3, 0), (3, 1)]):
        for head in range(2):
            segment = ((block * 2 + 1) * 2 + head) * (16 + 4 * 32 + 4 * 32)
            for part, given in enumerate((k, v)):
                codes, scale, _ = quantize("fp8", given[token, head])
                at = segment + 16 + part * 128 + slot * 32
                expected[at:at + 24] = codes
                at = segment + 4 * slot + 2 * part
                expected[at:at + 2] = scale, checksum([scale, *codes])
    assert (image == expected).all() and store.address(3, 1, 1) == 15 * 272


@pytest.mark.parametrize("format", ["bf16", "fp8"])
def test_beats_of_a_stream(format):
    """As many as the controller says, each with its place, scales of other slots left out."""
    config = KvCache(blocks=8, block_tokens=16, layers=2, kv_heads=3, head_dim=64, format=format, beat=32)
    store, ranges = kvstore.Store(config), [(5, 3, 13), (2, 0, 16), (7, 0, 2)]
    store.pool[:] = np.random.default_rng(5).integers(0, 256, store.pool.shape)
    beats = store.stream(ranges, 1, 0b101)
    assert len(beats) == 2 * sum(config.segment_beats(slots) for *_, slots in ranges)
    assert [beat.head for beat in beats] == [0] * (len(beats) // 2) + [2] * (len(beats) // 2)
    assert [n for n, beat in enumerate(beats) if beat.first] == [0, len(beats) // 2]
    assert [n for n, beat in enumerate(beats) if beat.last] == [len(beats) // 2 - 1, len(beats) - 1]
    assert [n for n, beat in enumerate(beats) if beat.end] == [len(beats) - 1]
    parts = [beat.part for beat in beats[:config.segment_beats(13)]]
    assert parts == sorted(parts) and parts.count(Part.SCALES) == config.scale_beats
    if format == "fp8":
        scales = b"".join(beat.data for beat in beats[:config.scale_beats])
        assert scales == bytes(12) + store.pool[5, 1, 0, 12:64].tobytes()
    last = beats[-config.row_beats:]
    at = 32 * (config.scale_beats + 17 * config.row_beats)
    assert b"".join(beat.data for beat in last) == store.pool[7, 1, 2, at:at + 32 * config.row_beats].tobytes()
    assert [beat.slot for beat in last] == [1] * config.row_beats and last[0].part == Part.V


def test_moves_take_used_slots_alone():
    config = KvCache(blocks=4, block_tokens=4, head_dim=64, beat=32)
    store, rng = kvstore.Store(config), np.random.default_rng(6)
    store.pool[:] = rng.integers(0, 256, store.pool.shape)
    before = store.pool.copy()
    store.move(Move.COPY, 1, 2, 3)
    changed = store.pool != before
    assert not changed[[0, 1, 3]].any()
    segment, row = store.pool[2, 0, 0], 64
    assert (segment[:12] == before[1, 0, 0, :12]).all() and (segment[12:32] == before[2, 0, 0, 12:32]).all()
    for start in (32, 32 + 4 * row):
        assert (segment[start:start + 3 * row] == before[1, 0, 0, start:start + 3 * row]).all()
        assert (segment[start + 3 * row:start + 4 * row] == before[2, 0, 0, start + 3 * row:start + 4 * row]).all()
    store.move(Move.OUT, 2, 700, 4)
    store.pool[3] = 0
    store.move(Move.IN, 700, 3, 4)
    assert (store.pool[3, ..., :16] == store.pool[2, ..., :16]).all()
    assert (store.pool[3, ..., 32:] == store.pool[2, ..., 32:]).all()


@pytest.mark.parametrize("line, sentence", [
    ("lanes = 16\nhead_dim = 40", r"kvcache.lanes = 16: must divide head_dim = 40"),
    ("lanes = 64\nhead_dim = 64\nformat = 'bf16'", r"kvcache.lanes = 64: must not fill more than a beat of 64 bytes"),
    ("blocks = 65536\nlayers = 256\nkv_heads = 16\naddress_bits = 32",
     r"kvcache.address_bits = 32: must reach 566935683072 bytes of blocks"),
])
def test_configurations_that_cannot_be(tmp_path, line, sentence):
    (tmp_path / "chip.toml").write_text(f"[kvcache]\n{line}\n")
    with pytest.raises(ConfigError, match=sentence):
        load(tmp_path / "chip.toml")




# RTL


@pytest.mark.parametrize("sizes", [
    {"format": "bf16", "head_dim": 256, "beat": 8, "lanes": 4},
    {"format": "fp8", "head_dim": 256, "beat": 128, "lanes": 64, "block_tokens": 32, "kv_heads": 1, "layers": 1},
    {"format": "fp8", "head_dim": 8, "beat": 64},
], ids=lambda sizes: "{format}-{head_dim}-{beat}".format(**sizes))
def test_extreme_sizes_become_verilog(sizes):
    assert Verilog(Store(KvCache(**sizes))).modules


TINY = KvCache(blocks=18, table=6, block_tokens=4, tenant_bits=1, beat=32, patience=400)
PADDED = KvCache(**TINY.model_dump() | {"head_dim": 24, "kv_heads": 3, "layers": 1, "beat": 16, "lanes": 4})
CONFIGS = {
    "fp8": TINY,
    "bf16": KvCache(**TINY.model_dump() | {"format": "bf16", "kv_heads": 1}),
    "padded": PADDED,
    "single": KvCache(**TINY.model_dump() | {"block_tokens": 1, "table": 9, "blocks": 40}),
}


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("name", CONFIGS if DEEP else ["fp8", "single"])
def test_random_commands_on_rtl(name, stall):
    """Completions, beats and all of memory are golden's, whatever overlaps."""
    for seed in range(5 if DEEP else 1):
        job = traffic(CONFIGS[name], f"{name} {seed}", 2000 if DEEP else 500, stall=stall, latency=1 if stall else 20)
        assert len(job.beats) > 1000 and job.nans
        run(job, seed=seed)


@pytest.mark.parametrize("stall", [0.0, 0.3])
def test_a_peer_of_others(stall):
    """The same against cocotbext-axi's memory."""
    job = traffic(TINY, "peer", 1000 if DEEP else 300, stall=stall)
    job.peer = True
    run(job)


@pytest.mark.parametrize("latency", [1, 40])
def test_streams_leave_no_bubble(latency):
    """From the first to the last beat of many streams; and the first is asked for within 8 cycles."""
    script = Script(TINY, 9)
    for sid in range(2):
        script.command(Opcode.ALLOC_SEQ, sid=sid)
        script.command(Opcode.APPEND, sid=sid, tokens=23)
    script.wait()
    cold = len([each for each in script.job.log if isinstance(each, tuple)])
    for sid in (0, 1, 0, 1):
        script.command(Opcode.STREAM, sid=sid, layer=1, heads=0b11)
    done = run(script.done(latency=latency))
    beats = done.channels["r"]
    assert beats[-1] - beats[0] + 1 == len(beats) == len(script.job.beats)
    assert done.channels["ar"][0] - done.commands[cold] <= 8


def test_a_copy_takes_used_slots_and_lets_new_ones_in():
    """New tokens are written behind the copied ones while the copy is under way; streams of both wait for it."""
    script = two_sequences()
    script.command(Opcode.FORK, sid=0, target=2)
    script.wait(quiet=True)
    script.command(Opcode.APPEND, sid=2, tokens=1)
    script.command(Opcode.WRITE, sid=2, layer=0, first=6, count=1)
    for sid in (2, 0):
        script.command(Opcode.STREAM, sid=sid, layer=0, heads=0b11)
    done = run(script.done(latency=40))
    assert sum(beats for id, beats in done.reads if id) == TINY.segments * TINY.segment_beats(2)


def two_sequences(config=TINY):
    """A script in which sequences 0 and 1 have six tokens each in blocks 1, 2 and 3, 4."""
    script = Script(config, 7)
    script.sequence(0, 6)
    script.sequence(1, 6)
    script.wait(quiet=True)
    return script


@pytest.mark.parametrize("response", [SLVERR, DECERR])
def test_read_errors(response):
    """Each beat that failed is flagged, and no other; the first names sequence and block."""
    script, segment = two_sequences(), TINY.segment_beats(4) * TINY.beat
    for sid in (0, 1, 0):
        script.command(Opcode.STREAM, sid=sid, layer=1, heads=0b10)
    start = script.store.address(4, 1, 1)
    done = run(script.done(errors={("r", range(start, start + segment)): response}))
    stream = TINY.segment_beats(4) + TINY.segment_beats(2)
    assert done.flagged == list(range(stream + TINY.segment_beats(4), 2 * stream)) and not done.dead
    assert unpack(FAULT, done.fault) == {"status": Status.BUS_ERR, "sid": 1, "place": 4, "host": 0, "write": 0}


@pytest.mark.parametrize("name", ["fp8", "padded"])
def test_bits_that_turn_over(name):
    """In a row, its scale or its checksum: the row's last beat is marked, and nothing else."""
    config = CONFIGS[name]
    script = two_sequences(config)
    segment, row = script.store.address(4, 0, 1), config.scale_beats * config.beat
    for at in segment + row, segment + 4 + 2, segment + 3:     # K of slot 0; V's scale of 1, V's checksum of 0
        script.flip(at, 0x10)
    for sid in (0, 1):
        script.command(Opcode.STREAM, sid=sid, layer=0, heads=0b11)
    job = script.done()
    assert [(beat.part, beat.slot) for beat in job.beats if beat.error] == [(Part.K, 0), (Part.V, 0), (Part.V, 1)]
    found = run(job)
    assert unpack(FAULT, found.fault) == {"status": Status.ECC_UE, "sid": 1, "place": 4, "host": 0, "write": 0}


def test_write_errors():
    script = Script(TINY, 8)
    start = script.store.address(3, 0, 0)
    script.sequence(0, 6)
    script.sequence(1, 6)
    script.command(Opcode.STREAM, sid=0, layer=0, heads=1)
    done = run(script.done(errors={("b", range(start, start + 32)): SLVERR}))
    assert not done.flagged
    assert unpack(FAULT, done.fault) == {"status": Status.BUS_ERR, "sid": 1, "place": 3, "host": 0, "write": 1}


def test_a_slot_that_host_memory_does_not_have():
    """What goes there is dropped and reported; all else goes on."""
    script = two_sequences()
    script.command(Opcode.SWAP_OUT, sid=0, slot=TINY.host_blocks - 1)
    script.command(Opcode.STREAM, sid=1, layer=0, heads=1)
    done = run(script.done(faulty=True))
    assert not done.flagged
    assert unpack(FAULT, done.fault) == {"status": Status.OUT_OF_RANGE, "sid": 0, "place": TINY.host_blocks,
                                         "host": 1, "write": 1}


@pytest.mark.parametrize("channel", ["ar", "r", "aw", "w", "b"])
def test_a_memory_that_is_silent_is_given_up(channel):
    """All commands complete and all beats come, those that are missing as errors."""
    script = two_sequences()
    for _ in range(3):
        script.command(Opcode.STREAM, sid=0, layer=1, heads=0b11)
        script.command(Opcode.WRITE, sid=0, layer=1, first=2, count=4)
        script.command(Opcode.FORK, sid=0, target=2)
        script.command(Opcode.APPEND, sid=2, tokens=1)
        script.wait()
        script.command(Opcode.FREE, sid=2)
    done = run(script.done(deaf={channel: 1200}))
    assert done.dead and unpack(FAULT, done.fault)["status"] == Status.BUS_ERR
    assert done.flagged == list(range(done.flagged[0], len(script.job.beats)))


@pytest.mark.parametrize("cycles", [1, 60, 400, *(range(401, 600, 7) if DEEP else ())])
def test_reset_amid_transfers(cycles):
    script = two_sequences()
    for sid in (0, 1, 0):
        script.command(Opcode.STREAM, sid=sid, layer=0, heads=0b11)
    run(script.done(interrupted=cycles, stall=0.2), seed=cycles)
