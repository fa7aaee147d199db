# SPDX-License-Identifier: Apache-2.0
"""`golden.vector` against float64, and the engine against it."""

import os
from fractions import Fraction

import numpy as np
import pytest

from golden import fp32, vector
from golden.config import Vector
from golden.formats import BF16, E4M3, E8M0, FORMATS, FP32, INT8, decode, encode, quantize_mx
from golden.isa import Operation, Quantize
from golden.vector import LOG2E, Instruction, check, execute
from hw.vector.engine import Engine
from hw.vector.ports import Error
from sim.formal.cones import cones
from sim.mutation.vector import corners
from sim.vector import Call, Job, run_all
from sim.vector import run as run_rtl

LENGTHS = 64, 96, 576, 1000, 2048, 4096
LANES = 4, 16


def codes(values):
    """The BF16 numbers next to some, as FP32 codes: what operands are."""
    return encode(BF16, values).astype(np.uint32) << 16


def values(x):
    return decode(FP32, x)


def run(operation, x, y=None, *, lanes=4, result_format="fp32", **options):
    """The result of an instruction on FP32 codes."""
    return execute(Instruction(operation, "fp32", "fp32", result_format, **options), x, y, lanes=lanes)


def last_places(found, due):
    """How many BF16 numbers what was `found`, rounded, is from the rounded `due`."""
    found, due = (encode(BF16, each).astype(int) for each in (found, due))
    found, due = (np.where(each >> 15, -(each & 0x7FFF), each) for each in (found, due))
    return np.abs(found - due)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("length", LENGTHS)
def test_rms_norm(length, lanes):
    rng = np.random.default_rng(length)
    x = codes(rng.standard_normal((20, length)) * np.exp(rng.uniform(-5, 5, (20, 1))))
    x[:5, ::50] = codes(values(x[:5, ::50]) * 100)
    weight = codes(rng.uniform(0.2, 3, (1, length)))
    due = values(x) / np.sqrt((values(x) ** 2).mean(-1, keepdims=True) + 1e-5) * values(weight)
    found = run(Operation.RMS_NORM, x, weight, lanes=lanes, alpha=1 / length, beta=1e-5).codes
    off = last_places(values(found), due)
    assert off.max() <= 1 and (off > 0).mean() < 0.01


@pytest.mark.parametrize("length", [64, 128])
def test_rope(length):
    rng = np.random.default_rng(length)
    x = codes(rng.standard_normal((500, length)))
    angles = rng.uniform(0, 4096, (500, 1)) / 500000 ** (np.arange(length // 2) / (length // 2))
    low, high = np.split(values(x), 2, -1)
    turned = (low + 1j * high) * np.exp(1j * angles)
    due = vector.pairs(np.concatenate([turned.real, turned.imag], -1))
    table = vector.pairs(np.concatenate([np.cos(angles), np.sin(angles)], -1))
    found = values(run(Operation.ROPE, vector.pairs(x), encode(FP32, table)).codes)
    # Where the two products cancel, nothing but their own last places is left.
    size = np.repeat(np.abs(low) + np.abs(high), 2, -1)
    assert (np.abs(found - due) <= 2.0**-22 * size).all()
    off = last_places(found, due)
    assert (off[np.abs(due) > 2.0**-10 * size] <= 1).all() and (off > 0).mean() < 0.01


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("length", [1, 2, 3, 17, *LENGTHS])
def test_softmax(length, lanes):
    rng = np.random.default_rng(length)
    x = codes(rng.standard_normal((30, length)) * np.exp(rng.uniform(-3, 3.5, (30, 1))) + rng.uniform(-50, 50, (30, 1)))
    due = np.exp(values(x) * 0.125 - (values(x) * 0.125).max(-1, keepdims=True))
    due /= due.sum(-1, keepdims=True)
    found = values(run(Operation.SOFTMAX, x, lanes=lanes, alpha=0.125 * LOG2E).codes)
    large = due > 1e-5
    assert (np.abs(found / due - 1)[large] <= 2.0**-8).all() and last_places(found, due)[large].max() <= 1
    assert (np.abs(found.sum(-1) - 1) <= 2.0**-8).all()
    rounded = decode(BF16, encode(BF16, found))
    assert (np.abs(rounded.sum(-1) - 1) <= 2.0**-8).all()


def test_softmax_of_what_is_masked():
    masked, nan = fp32.INF | fp32.SIGN, fp32.NAN
    x = np.array([[masked] * 6, [masked, 0, 0, masked, 0, 0], [0, 0, nan, 0, 0, 0]], np.uint32)
    found = run(Operation.SOFTMAX, x).codes
    assert not found[0].any()
    np.testing.assert_array_equal(values(found[1]), [0, 0.25, 0.25, 0, 0.25, 0.25])
    assert (found[2] == nan).all()


@pytest.mark.parametrize("turn", [1, -1])
def test_one_nan_is_enough_for_a_row(turn):
    """Wherever it is, though all scores that follow be larger, or smaller."""
    x = np.repeat(encode(FP32, np.arange(40.0)[::turn] * 9)[None], 40, 0)
    x[range(40), range(40)] = fp32.NAN
    assert (run(Operation.SOFTMAX, x).codes == fp32.NAN).all()


def test_softmax_of_large_scores():
    """The running maximum is subtracted exactly, so far from zero as near it."""
    near = np.random.default_rng(1).integers(-40, 0, (10, 100)).astype(float)
    for far in (-30000, 1000, 30000):
        np.testing.assert_array_equal(run(Operation.SOFTMAX, encode(FP32, near + far)).codes,
                                      run(Operation.SOFTMAX, encode(FP32, near)).codes)


def test_total_is_in_the_order_that_is_documented():
    x = encode(FP32, np.random.default_rng(2).standard_normal((7, 45)))
    def add(*rest):
        return rest[0] if len(rest) == 1 else fp32.add(add(*rest[:len(rest) // 2]), add(*rest[len(rest) // 2:]))
    padded = np.pad(x, [(0, 0), (0, 3)])
    partials = [np.zeros(7, np.uint32)] * 4
    for beat in range(12):
        partials[beat % 4] = fp32.add(partials[beat % 4], add(*padded[:, 4 * beat:4 * beat + 4].T))
    np.testing.assert_array_equal(vector.total(x, 4), add(*partials))


def test_silu():
    rng = np.random.default_rng(3)
    x, gate = codes(rng.standard_normal((2, 100, 100)) * 4)
    due = values(x) / (1 + np.exp(-values(x))) * values(gate)
    off = last_places(values(run(Operation.SILU, x, gate, alpha=-LOG2E).codes), due)
    assert off.max() <= 1 and (off > 0).mean() < 0.005


def test_sums_and_products():
    """Constants, what y may be, and what its absence means."""
    rng = np.random.default_rng(7)
    x, y = encode(BF16, rng.standard_normal((2, 9, 33)))
    a, b = decode(BF16, x), decode(BF16, y)
    def due(values):
        return encode(BF16, encode(FP32, values).view(np.float32))
    for each, other in ((y, b), (y[:1], b[:1]), (y[:, :1], b[:, :1]), (None, 1)):
        np.testing.assert_array_equal(execute(Instruction(Operation.MUL), x, each, lanes=4).codes, due(a * other))
        np.testing.assert_array_equal(execute(Instruction(Operation.ADD, alpha=2, beta=0.5), x, each, lanes=4).codes,
                                      due(2 * a + other / 2))
    np.testing.assert_array_equal(execute(Instruction(Operation.ADD, alpha=0.25), x, lanes=4).codes, due(a / 4))


@pytest.mark.parametrize("name", ["fp32", "bf16", "e4m3", "e5m2", "int8", "e2m1"])
def test_copies_change_nothing(name):
    """Every code of a format: NaN is canonical, FP32's subnormals are zero."""
    fmt = FORMATS[name]
    x = np.arange(1 << min(fmt.width, 16)).astype(fmt.dtype).reshape(4, -1) << max(fmt.width - 16, 0)
    found = execute(Instruction(Operation.MUL, name, result_format=name), x, lanes=4)
    number = np.isfinite(decode(fmt, x)) & (np.abs(decode(fmt, x)) >= 2.0**-126)
    if fmt is INT8:
        number &= x != 0x80             # saturates to -127, as quantized numbers do
    np.testing.assert_array_equal(found.codes[number], x[number])
    assert found.nans == np.isnan(decode(fmt, x)).sum()


def test_top_k():
    rng = np.random.default_rng(4)
    x = codes(rng.integers(-20, 20, (50, 200)).astype(float))
    def top(x, k):
        found = run(Operation.TOP_K, x, k=k).scalars
        return found[..., 0], found[..., 1]
    found, places = top(x, 8)
    for row, got, where in zip(values(x), values(found), places, strict=True):
        order = sorted(range(200), key=lambda n: (-row[n], n))[:8]
        assert where.tolist() == order and got.tolist() == row[order].tolist()
    x[0, 77] = fp32.NAN
    x[1, [3, 5]] = 0x80000000, 0
    assert top(x, 1)[1][0, 0] == 77 and top(x[1:2, 3:6:2], 1)[1][0, 0] == 1


def test_scaled_rows():
    rng = np.random.default_rng(5)
    x = codes(rng.standard_normal((200, 128)) * np.exp(rng.uniform(-60, 60, (200, 1))))
    x[0] = 0
    found = run(Operation.MUL, x, result_format="e4m3", quantize=Quantize.ROW)
    scales = values(found.scalars)
    assert not found.codes[0].any() and scales[0] == 1
    assert (np.abs(decode(E4M3, found.codes[1:])).max(-1) >= 416).all()
    error = np.abs(decode(E4M3, found.codes) * scales - values(x))
    assert (error <= np.maximum(np.abs(values(x)) * 2.0**-4, scales * 2.0**-10) * (1 + 2.0**-12)).all()


@pytest.mark.parametrize("rule", [Quantize.MX, Quantize.MX_CEIL])
@pytest.mark.parametrize("name", ["e4m3", "e5m2", "e2m1"])
def test_scaled_blocks(name, rule):
    """Equal to the rules of OCP, but for blocks that hold no number, or are too small for FP32."""
    rng = np.random.default_rng(6)
    x = codes(rng.standard_normal((50, 77)) * np.exp(rng.uniform(-60, 60, (50, 1))))
    x[:4, :40] = 0
    found = run(Operation.MUL, x, result_format=name, quantize=rule)
    due, scales = quantize_mx(FORMATS[name], values(x), rule="ceil" if rule == Quantize.MX_CEIL else "floor")
    np.testing.assert_array_equal(found.codes, due)
    np.testing.assert_array_equal(found.scalars, scales)
    x[5, 3], x[6, 40] = fp32.NAN, fp32.INF
    found = run(Operation.MUL, x, result_format=name, quantize=rule)
    assert found.scalars[5, 0] == found.scalars[6, 1] == E8M0.nan and found.nans == 64


@pytest.mark.parametrize("name", vector.QUANTIZED[Quantize.MX])
def test_elements_times_scales_of_blocks(name):
    """All codes under all scales are what their bits say, exactly, or beyond FP32's normal numbers."""
    fmt = FORMATS[name]
    x = np.arange(1 << fmt.width, dtype=np.uint8).repeat(2).reshape(1, -1)      # 16 codes a block, or fewer
    for scale in range(256):
        y = np.full((1, -(-x.size // 32)), scale, np.uint8)
        found, = execute(Instruction(Operation.MUL, name, E8M0.name, "fp32"), x, y, lanes=4).codes
        for code, got in zip(x[0].tolist(), found.tolist(), strict=True):
            exponent, fraction = code >> fmt.mantissa & (1 << fmt.exponent) - 1, code & (1 << fmt.mantissa) - 1
            sign = code >> fmt.width - 1 << 31
            if scale == 255 or name == "e4m3" and code & 0x7F == 0x7F or name == "e5m2" and code & 0x7F > 0x7C:
                due = fp32.NAN
            elif name == "e5m2" and code & 0x7F == 0x7C:
                due = sign | fp32.INF
            else:
                value = (Fraction(fraction, 1 << fmt.mantissa) + (exponent != 0)) * (
                    Fraction(2) ** (max(exponent, 1) - fmt.bias + scale - 127))
                due = sign | (0 if value < Fraction(2) ** -126 else fp32.INF if value >= 2**128 else
                              int(np.float32(float(value)).view(np.uint32)))
            assert got == due, f"{name} {code:x} under {scale}: {got:08x}, not {due:08x}"


@pytest.mark.parametrize("rule", [Quantize.MX, Quantize.MX_CEIL])
@pytest.mark.parametrize("name", vector.QUANTIZED[Quantize.MX])
def test_what_is_scaled_by_blocks_reads_back(name, rule):
    """Near what it was before, from the largest numbers to the smallest, and not changed by being written again."""
    rng, fmt = np.random.default_rng(9), FORMATS[name]
    x = encode(FP32, rng.standard_normal((300, 77)) * 2.0 ** rng.integers(-126, 125, (300, 1)))
    written = run(Operation.MUL, x, result_format=name, quantize=rule)
    def read(written):
        given = Instruction(Operation.MUL, name, E8M0.name, "fp32")
        return execute(given, written.codes, written.scalars, lanes=4).codes
    found = read(written)
    place = np.repeat(decode(E8M0, written.scalars), 32, -1)[:, :77] * 2.0**fmt.lsb
    bound = np.maximum(np.abs(values(x)) * 2.0 ** -(fmt.mantissa + (rule == Quantize.MX_CEIL)), place / 2)
    assert (np.abs(values(found) - values(x)) <= np.maximum(bound, 2.0**-126)).all()
    np.testing.assert_array_equal(read(run(Operation.MUL, found, result_format=name, quantize=rule)), found)


@pytest.mark.parametrize("quantize", [Quantize.ROW, Quantize.MX])
def test_norm_and_scale_in_one(quantize):
    """As close to float64 as the norm first and then the scales."""
    rng = np.random.default_rng(8)
    x, weight = codes(rng.standard_normal((40, 256)) * 3), codes(rng.uniform(0.2, 3, (1, 256)))
    due = values(x) / np.sqrt((values(x) ** 2).mean(-1, keepdims=True)) * values(weight)
    found = run(Operation.RMS_NORM, x, weight, alpha=1 / 256, beta=0, result_format="e4m3", quantize=quantize)
    scales = values(found.scalars) if quantize == Quantize.ROW else np.repeat(decode(E8M0, found.scalars), 32, -1)
    error = decode(E4M3, found.codes) * scales - due
    assert np.sqrt((error**2).mean() / (due**2).mean()) < 0.03


# The engine

CONFIG = Vector(lanes=4, row_max=256)
PORTS = "instructions", "x", "y", "x_request", "y_request", "results", "completions"
FORMATS_OF = "fp32", "bf16", "e4m3", "e5m2", "int8", "e2m1"
DEEP = "DEEP" in os.environ


def draw(rng, name, shape, specials=0.0):
    """Codes of a format; a fraction of them any at all, NaN and infinite ones included."""
    fmt = FORMATS[name]
    if fmt is E8M0:
        drawn, specials = rng.integers(100, 150, shape), max(specials, 0.2)
        return np.where(rng.random(shape) < specials, rng.integers(0, 256, shape), drawn).astype(np.uint8)
    size = 40 if fmt is INT8 else 2
    drawn = encode(fmt, rng.standard_normal(shape) * size * np.exp(rng.uniform(-3, 3, (*shape[:-1], 1))))
    return np.where(rng.random(shape) < specials, rng.integers(0, 1 << fmt.width, shape), drawn).astype(fmt.dtype)


def call(rng, operation, rows, length, quantize=Quantize.NONE, *, x="bf16", y="bf16", result="bf16", second=1,
         specials=0.0, k=1):
    """A random call; `second` chooses what y is: absent, all of it, one row, a number a row.

    Scales of blocks, all of them or one row, are a y of "e8m0".
    """
    width = -(-length // 32) if y == E8M0.name else length
    shape = [None, (rows, width), (1, width), (rows, 1)][second]
    alpha = {Operation.SILU: -LOG2E, Operation.SOFTMAX: LOG2E, Operation.RMS_NORM: 1 / length}.get(operation, 0.75)
    beta = 1e-5 if operation == Operation.RMS_NORM else -1.5
    return Call(Instruction(operation, x, y, result, alpha, beta, quantize, k), draw(rng, x, (rows, length), specials),
                shape and draw(rng, y, shape, specials))


def grid(rng, config, count):
    """Calls of all kinds, one after the other."""
    lengths = [1, 2, 3, config.lanes, config.lanes + 1, 31, 32, 33, 4 * config.lanes, 77, 100, config.row_max]
    rules = [(operation, rule) for operation in Operation for rule in (
        [Quantize.NONE] if operation in (Operation.SOFTMAX, Operation.TOP_K) else Quantize)]
    for n in range(count):
        operation, rule = rules[n % len(rules)]
        length = min(int(rng.choice([*lengths, rng.integers(1, 300)])), config.row_max)
        length += length % 2 * (operation == Operation.ROPE)
        k = int(rng.integers(1, min(length, 8) + 1))
        x, y, second = str(rng.choice(FORMATS_OF)), str(rng.choice(FORMATS_OF)), int(rng.integers(0, 4))
        if operation in (Operation.MUL, Operation.TOP_K) and rng.random() < 0.3:
            x, y, second = str(rng.choice(vector.QUANTIZED[Quantize.MX])), E8M0.name, int(rng.integers(1, 3))
        yield call(rng, operation, int(rng.integers(1, 6)), length, rule, k=k, x=x, y=y, second=second,
                   result=str(rng.choice(vector.QUANTIZED[rule])), specials=rng.choice([0, 0, 0.01]))


@pytest.mark.parametrize("lanes", [4, 16] if DEEP else [4])
def test_all_operations_under_stalls(lanes):
    """Bit-exact at no stall and at heavy stall, with every port seen held back and starved."""
    config = Vector(lanes=lanes, row_max=256)
    calls = list(grid(np.random.default_rng(1), config, 1000 if DEEP else 150))
    stalls = Job(config, calls, stall=0.6, seed=1)
    (_, seen), *_ = run_all([stalls, Job(config, calls), Job(config, calls, latency=20)])
    for port in PORTS:
        assert seen[port, "held back"] and seen[port, "starved"], f"{port} did not stall both ways"


@pytest.mark.parametrize("lanes", [2, 32] if DEEP else [2])
def test_fewest_and_most_lanes(lanes):
    config = Vector(lanes=lanes, row_max=64)
    run_rtl(Job(config, list(grid(np.random.default_rng(2), config, 60)), stall=0.3, seed=2))


def test_all_scales_of_blocks():
    """Under each there are elements of all kinds, in rows longer than a word of scales."""
    calls = []
    for name in vector.QUANTIZED[Quantize.MX]:
        fmt = FORMATS[name]
        x = np.arange(8192).reshape(256, 32).astype(np.uint32) * 0x9E3779B1 >> 32 - fmt.width
        scales = np.arange(256, dtype=np.uint8)
        for shape in (256, 1), (2, 128):
            calls.append(Call(Instruction(Operation.MUL, name, E8M0.name, "fp32"),
                              x.astype(np.uint8).reshape(shape[0], -1), scales.reshape(shape)))
    run_rtl(Job(CONFIG, calls))


def test_corner_values():
    """Scores, constants, sums, scales and results of which each bit tells, NaN and Inf in every place."""
    run_rtl(Job(CONFIG, corners()))


def test_one_operation_after_another():
    """Short rows of all kinds, mixed, so that many instructions are under way."""
    rng = np.random.default_rng(3)
    calls = [call(rng, rng.choice(Operation), int(rng.integers(1, 4)), 2 * int(rng.integers(1, 5)),
                  second=int(rng.integers(0, 4))) for _ in range(300)]
    run_all([Job(CONFIG, calls), Job(CONFIG, calls, stall=0.3, seed=3)])


def test_many_rows_wait_for_their_sums():
    """More rows and blocks than there is room for, while results are not taken."""
    rng = np.random.default_rng(4)
    calls = [call(rng, operation, 300, length, rule, result="e4m3") for operation, rule, length in (
        (Operation.RMS_NORM, Quantize.ROW, 3), (Operation.RMS_NORM, Quantize.MX, 40), (Operation.SOFTMAX, 0, 5),
        (Operation.MUL, Quantize.MX_CEIL, 33), (Operation.TOP_K, 0, 4))]
    run_all([Job(CONFIG, calls), Job(CONFIG, calls, stall=0.8, seed=4)])


@pytest.mark.parametrize("seed", [1, 2])
def test_random_start(seed):
    """Registers and memories may wake up holding anything."""
    calls = list(grid(np.random.default_rng(5), CONFIG, 40))
    run_rtl(Job(CONFIG, calls, seed=seed), x_initial="unique")


def test_reset_in_mid_traffic():
    calls = list(grid(np.random.default_rng(6), CONFIG, 40))
    run_all([Job(CONFIG, calls, stall=0.3, seed=6, reset=cycles) for cycles in (100, 231, 1777)])


@pytest.mark.parametrize("fields, shape, named", [
    ({"operation": Operation.SOFTMAX, "quantize": Quantize.ROW, "result_format": "e4m3"}, (1, 8), "quantize = row"),
    ({"operation": Operation.MUL, "quantize": Quantize.MX, "result_format": "int8"}, (1, 8), "output = int8"),
    ({"operation": Operation.TOP_K, "k": 9}, (1, 64), "k = 9"),
    ({"operation": Operation.TOP_K, "k": 8}, (1, 7), "1 to 7"), ({"operation": Operation.ROPE}, (1, 7), "even"),
    ({"operation": Operation.RMS_NORM}, (1, 257), "1 to 256"),
    ({"operation": Operation.ADD}, (1, 0), "no elements"), ({"operation": Operation.ADD}, (0, 8), "no rows"),
    ({"operation": Operation.ADD, "y_format": E8M0.name}, (1, 8), "y of e8m0"),
])
def test_what_is_refused_is_named(fields, shape, named):
    """The reference refuses what the hardware refuses."""
    with pytest.raises(ValueError, match=named):
        check(Instruction(**fields), shape, row_max=256)


def test_refused_instructions_disturb_nobody():
    """Each bad instruction completes with its code and writes nothing; those around it are exact."""
    rng = np.random.default_rng(7)
    bad = [
        (Operation.MUL, {"operation": 7}, Error.OPERATION),
        *((operation, {"second": 3, "x_format": 2}, Error.OPERATION) for operation in Operation
          if operation not in (Operation.MUL, Operation.TOP_K)),
        *((operation, {"second": 3, "x_format": x}, Error.FORMAT)
          for operation in (Operation.MUL, Operation.TOP_K) for x in (0, 1, 4, 6)),
        (Operation.TOP_K, {"k": 0}, Error.OPERATION), (Operation.TOP_K, {"k": 9}, Error.OPERATION),
        (Operation.TOP_K, {"quantize": 1, "result_format": 2}, Error.OPERATION),
        (Operation.SOFTMAX, {"quantize": 2, "result_format": 2}, Error.OPERATION),
        (Operation.MUL, {"rows": 0}, Error.DIMENSION), (Operation.ADD, {"length": 0}, Error.DIMENSION),
        (Operation.ROPE, {"length": 7}, Error.DIMENSION), (Operation.SOFTMAX, {"length": 257}, Error.DIMENSION),
        (Operation.RMS_NORM, {"length": 257}, Error.DIMENSION),
        (Operation.TOP_K, {"k": 8, "length": 7}, Error.DIMENSION),
        (Operation.MUL, {"length": 257, "quantize": 1, "result_format": 2}, Error.DIMENSION),
        (Operation.MUL, {"x_format": 6}, Error.FORMAT), (Operation.MUL, {"y_format": 7}, Error.FORMAT),
        (Operation.MUL, {"result_format": 6}, Error.FORMAT),
        (Operation.MUL, {"quantize": 1, "result_format": 1}, Error.FORMAT),
        (Operation.MUL, {"quantize": 2, "result_format": 4}, Error.FORMAT),
        (Operation.MUL, {"quantize": 3, "result_format": 0}, Error.FORMAT),
    ]
    calls = []
    for operation, fields, _ in bad:
        calls += [call(rng, Operation.RMS_NORM, 2, 10), call(rng, operation, 2, 10)]
        calls[-1].fields = fields
    runs, _ = run_rtl(Job(CONFIG, [*calls, call(rng, Operation.ADD, 2, 10)]))
    assert [one.error for one in runs] == [code for _, _, error in bad for code in (0, error.value)] + [0]


def test_no_port_answers_within_the_cycle():
    """No valid waits for a ready; nothing at the ports depends on anything else in its cycle."""
    assert not any(outputs for port, outputs in cones(Engine(Vector(lanes=2, row_max=32))).items() if port != "rst")


def test_longer_rows_where_nothing_waits_for_their_end():
    """Elements, blocks and the largest of a row need no room for all of it."""
    rng = np.random.default_rng(8)
    run_rtl(Job(CONFIG, [
        call(rng, Operation.SILU, 1, 3001), call(rng, Operation.ADD, 2, 2000, Quantize.MX, result="e4m3"),
        call(rng, Operation.TOP_K, 2, 1999, k=3)]))


def test_wrong_responses():
    """A read that comes back short or long: the instruction says so, those around it are exact."""
    rng = np.random.default_rng(9)
    calls = [call(rng, operation, 3, 20) for operation in (Operation.MUL, Operation.ADD, Operation.RMS_NORM)]
    changes = [("x", -1), ("x", 2), ("y", -1), ("y", 1)]
    # What comes beyond an end may come when the next read has begun, and is dropped.
    for runs, _ in run_all([Job(CONFIG, calls, broken={(port, 1): change}) for port, change in changes]):
        assert [one.error for one in runs] == [0, Error.RESPONSE.value, 0]
