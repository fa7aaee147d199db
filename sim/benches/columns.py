# SPDX-License-Identifier: Apache-2.0
"""Bench of `hw.attention.columns.Columns` against a transposed array; `KV` is its configuration."""

import os

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from golden.config import KvCache
from golden.scores import Widths

CONFIG = KvCache.model_validate_json(os.environ["KV"])
WIDTHS = Widths(CONFIG)


def integer(codes):
    return int.from_bytes(codes.astype(codes.dtype.newbyteorder("<")).tobytes(), "little")


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def transposes(dut):
    """One slot is filled, in any order and with pauses, while the columns of the other are read."""
    rng, tokens, elements, beats = (
        np.random.default_rng(cocotb.RANDOM_SEED), WIDTHS.tokens, WIDTHS.elements, CONFIG.row_beats)
    Clock(dut.clk, 2, unit="ns").start()
    dut.write_en.value = dut.read_en.value = 0
    slots, expected, both, holds = [None, None], None, 0, 0
    for turn in range(10):
        rows = rng.integers(0, 1 << WIDTHS.fmt.width, (tokens, beats * elements)).astype(WIDTHS.fmt.dtype)
        given = int(rng.integers(1, tokens + 1)) if turn % 3 else tokens
        writes = rng.permutation(given * beats)
        filled, old = turn % 2, slots[1 - turn % 2]
        reads = rng.permutation(WIDTHS.columns) if old is not None else []
        writes, reads = list(writes), list(reads)
        while writes or reads:
            write, read = bool(writes) and rng.random() < 0.8, bool(reads) and rng.random() < 0.8
            dut.write_en.value, dut.read_en.value = write, read
            dut.write_slot.value, dut.read_slot.value = filled, filled if not read else 1 - filled
            dut.read_tokens.value = int(rng.integers(tokens + 1))
            token, beat = divmod(int(writes.pop()) if write else 0, beats)
            dut.write_token.value, dut.write_beat.value = token, beat
            dut.write_data.value = integer(rows[token, beat * elements:][:elements])
            if read:
                pair = int(reads.pop())
                dut.read_pair.value, dut.read_tokens.value = pair, old[1]
            await RisingEdge(dut.clk)          # what was read in the cycle before is sampled here
            if expected is not None:
                assert int(dut.o.value) == expected
                holds += not read
            if read:
                columns = np.where(np.arange(tokens) < old[1], old[0].T[2 * pair:2 * pair + 2], 0)
                expected, both = integer(columns.astype(WIDTHS.fmt.dtype)), both + write
        slots[filled] = rows, given
    assert both and holds
