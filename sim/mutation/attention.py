# SPDX-License-Identifier: Apache-2.0
"""The mutants of attention, and the heads that they are put to."""

from dataclasses import replace
from functools import cache

import numpy as np

from golden.attention import score_code
from golden.config import KvCache
from golden.formats import BF16, E8M0, FP32, decode, encode
from golden.scores import FRACTION, Widths
from hw.attention.align import Align
from hw.attention.attention import Attention
from hw.attention.columns import Columns
from hw.attention.dot import DotPair
from hw.attention.elements import Elements
from hw.attention.intake import Intake
from hw.attention.inverse import Inverse
from hw.attention.mean import Mean
from hw.attention.queries import Queries
from hw.attention.scores import Scores
from hw.attention.tally import Tally
from hw.attention.weight import Weight
from hw.attention.weights import Weights
from sim.attention import Job
from sim.formal.attention import WATCHED, IntakeRules
from sim.formal.prove import Task
from sim.heads import KINDS, draw
from sim.mutation.campaign import Unwatched, judged
from sim.mutation.mutants import Target
from sw.attention import NONE, Head, Mask

__all__ = ["CONFIGS", "GROUP", "inside", "jobs", "run"]

BENCH = "sim.benches.attention_mutants"
MUTANTS, GROUP = 100, 2
HELD = 300          # cycles in which stalled jobs take no results, and then no completions: queues fill
CONFIGS = {
    "attention": KvCache(format="fp8", beat=8, head_dim=16, lanes=4, block_tokens=4, table=8),
    "attention_bf16": KvCache(format="bf16", beat=8, head_dim=8, lanes=4, block_tokens=4, table=8),
    "attention_wide": KvCache(format="fp8", beat=8, head_dim=16, lanes=4, block_tokens=2, table=16),
}
"""FP8, BF16, and groups larger than a block, which have four slots."""
NUMBERS = ("weight", "scores", "align", "mean", "elements", "dot_pair")
PARTS = {"attention": ("intake", "weights", *NUMBERS, "queries", "inverse"),
         "attention_bf16": (*NUMBERS, "queries", "tally"), "attention_wide": ("intake", "columns", "tally", "")}
"""What is mutated of each, where it differs from those before; the wiring has no name."""


def run(folder, progress, label=""):
    """Judge the mutants, if their label begins so; return a list of `campaign.Verdict`."""
    return [verdict for name, kv in CONFIGS.items()
            for verdict in judged(name, inside(name), jobs(kv), BENCH, folder, progress, label)]


def inside(name="attention"):
    """Attention, and what of it is mutated."""
    kv = CONFIGS[name]
    blocks = {"": Attention(kv, GROUP), "intake": Intake(kv, GROUP), "weights": Weights(kv, GROUP),
              "weight": Weight(kv), "scores": Scores(kv, GROUP), "align": Align(), "mean": Mean(kv),
              "elements": Elements(kv), "dot_pair": DotPair(kv), "queries": Queries(kv, GROUP),
              "inverse": Inverse(kv, GROUP), "columns": Columns(kv), "tally": Tally(kv)}
    return blocks[""], [
        Target(f"{name}_{part}".rstrip("_"), Task(blocks[part], IntakeRules, depth=14, watched=WATCHED)
               if part == "intake" else Task(blocks[part], Unwatched), MUTANTS, compared=part in ("intake", "align"))
        for part in PARTS[name]]


@cache
def jobs(kv):
    """Heads of every kind and many lengths, with stalls and without; whatever is no number; all exponents; all that
    can be wrong."""
    rng = np.random.default_rng(1)
    full, groups = kv.table * kv.block_tokens, 2 * Widths(kv).tokens

    def heads(count, kinds=KINDS, most=14, least=1, **options):
        return [draw(rng, kv, int(rng.integers(1, GROUP + 1)), int(rng.integers(least, most)), str(rng.choice(kinds)),
                     **options) for _ in range(count)]

    return [
        Job(kv, GROUP, heads(8, ("plain", "spread", "codes"))), Job(kv, GROUP, heads(14)),
        Job(kv, GROUP, heads(10, least=0, most=3)),
        Job(kv, GROUP, heads(6, most=33), stall=0.4, held=HELD, ragged=True),
        *(Job(kv, GROUP, [_far(rng, kv, 1 + (start + n) % (groups + 1)) for n in range(12)]) for start in (0, 5, 3)),
        Job(kv, GROUP, [each for nan in range(kv.head_dim) for each in _nan(rng, kv, nan)] + [*_nearly(rng, kv)]),
        Job(kv, GROUP, [_seen(rng, kv, full) for _ in range(6)]), Job(kv, GROUP, [*_limits(rng, kv, full)]),
        *(Job(kv, GROUP, heads(10, (kind,), most=20), seed=n) for n, kind in enumerate(KINDS)),
        *(Job(kv, GROUP, [draw(rng, kv, GROUP, full, kind, masked=masked) for kind in kinds])
          for masked, kinds in ((False, KINDS[:3]), (True, KINDS[3:]))),
        Job(kv, GROUP, heads(8), stall=0.7, held=HELD, seed=2), Job(kv, GROUP, heads(6), queue=False, seed=4),
        *(Job(kv, GROUP, heads(14, most=most, least=0), stall=stall, held=HELD, seed=3)
          for most, stall in ((3, 0.2), (1, 0.1))),
        *(_wrong(rng, kv, **options) for options in ({"queue": False}, {}, {"stall": 0.5, "held": HELD})),
        *(Job(kv, GROUP, heads(24, most=12), seed=n) for n in range(3)),
        Job(kv, GROUP, [*_blind(rng, kv, groups // 2)]), Job(kv, GROUP, [*_places(rng, kv)]),
        *(Job(kv, GROUP, heads(40, most=most, least=0), ragged=True, seed=n) for n, most in enumerate((3, 6, 12))),
        Job(kv, GROUP, [_sums(rng, kv, full) for _ in range(6)]), Job(kv, GROUP, [*_operands(rng, kv)]),
    ]


def _far(rng, kv, tokens):
    """A head of elements of all exponents, whose queries and scales make up for it: scores are seldom nothing, nor all
    that there is, and come near the sink's."""
    given = draw(rng, kv, GROUP, tokens, masked=bool(rng.integers(2)))
    low, high = int(rng.integers(255)), int(rng.integers(255))      # K's exponent and V's
    k, k_scales, v, v_scales = *_elements(rng, kv, tokens, low), *_elements(rng, kv, tokens, high)
    shape = given.queries.shape
    field = 254 - low + rng.integers(-6, 6, (len(given.queries), 1)) - rng.integers(0, 12, shape)
    queries = _code(rng, FP32, field.clip(1, 254)).astype(np.uint32)
    sink = score_code(rng.normal(size=len(queries)) * 4 + rng.integers(-70, 71, len(queries)))
    return replace(given, queries=queries, k=k, v=v, k_scales=k_scales, v_scales=v_scales,
                   sink=np.where(rng.random(len(queries)) < 0.5, sink, NONE))


def _elements(rng, kv, tokens, top):
    """Codes and scales of rows: numbers of about 2**(`top` - 127)."""
    fmt, shape = Widths(kv).fmt, (tokens, kv.head_dim)
    if fmt is BF16:
        below = np.repeat(rng.integers(0, 40, (tokens, kv.row_beats)) * rng.integers(2, size=(tokens, kv.row_beats)),
                          Widths(kv).elements, -1)[:, :kv.head_dim]         # of beats
        return _code(rng, fmt, np.maximum(top - below - rng.integers(0, 31, shape), 0)), np.zeros(tokens, np.uint8)
    field = rng.integers(16, size=(tokens, 1))
    scales = top + fmt.bias - field[:, 0] + rng.integers(-4, 5, tokens)
    return _code(rng, fmt, (field + rng.integers(-2, 2, shape)).clip(0, 15)), scales.clip(0, 254).astype(np.uint8)


def _code(rng, fmt, field):
    """Codes of numbers with these exponents' fields."""
    codes = np.minimum(field << fmt.mantissa | rng.integers(1 << fmt.mantissa, size=field.shape), fmt.max)
    return (codes | rng.integers(2, size=field.shape) << fmt.width - 1).astype(fmt.dtype)


def _nan(rng, kv, place):
    """Heads with something that is no number, at a place of V, of K, among scales: one query sees it, and no other."""
    fmt, size = Widths(kv).fmt, Widths(kv).tokens
    for part, tokens in ("v", 2 * size), ("v", 2 * size), ("k", size), ("k_scales", size), ("v_scales", size):
        if part in ("k", "v") or fmt is not BF16 and place < 2 * size:
            token, who = place % tokens, place // tokens % GROUP
            first, end = (0, token) if token else (1, tokens)       # for those that do not
            own = np.arange(GROUP) == who
            mask = Mask(np.where(own, token, first), np.where(own, token + 1, end))
            given = draw(rng, kv, GROUP, tokens, masked=False)
            rows = getattr(given, part).copy()
            if part in ("k", "v"):
                rows[token, place] = rng.choice([fmt.nan, fmt.max + 1]) | rng.integers(2) << fmt.width - 1
            else:
                rows[token] = E8M0.nan
            yield replace(given, mask=mask, **{part: rows})


def _places(rng, kv):
    """Heads of a group each: in every slot, values that are no number at all places, which one query sees; the other
    sees what comes before, or after."""
    widths, size = Widths(kv), Widths(kv).tokens
    for before, beat, token, _ in np.ndindex(2, kv.row_beats, size, widths.slots):
        given = draw(rng, kv, GROUP, size, masked=False)
        rows = given.v.copy()
        rows[token, rng.choice(np.flatnonzero(np.arange(kv.head_dim) // widths.elements == beat))] = widths.fmt.nan
        own = np.arange(GROUP) == rng.integers(GROUP)
        yield replace(given, v=rows, mask=Mask(np.where(own, token, 0 if before else token + 1),
                                               np.where(own, token + 1, token if before else size)))


def _nearly(rng, kv):
    """Heads of numbers that lack a bit of being none, each bit at every place."""
    fmt = Widths(kv).fmt
    bits = np.arange(fmt.mantissa if fmt is BF16 else 0, fmt.width - 1)
    rows, columns = np.ogrid[:len(bits), :kv.head_dim]
    near = (1 << fmt.width - 1) - 1 ^ 1 << bits[(rows + columns) % len(bits)]
    near = (near | rng.integers(2, size=near.shape) << fmt.width - 1).astype(fmt.dtype)
    scales = (E8M0.nan ^ 1 << np.arange(len(bits))).astype(np.uint8)
    for part in "k", "v":
        given = draw(rng, kv, GROUP, len(bits), masked=False)
        yield replace(given, **{part: near})
        if fmt is not BF16:
            yield replace(given, **{f"{part}_scales": scales})


def _seen(rng, kv, tokens):
    """A long head whose masks have any numbers in them."""
    given = draw(rng, kv, GROUP, tokens, masked=False)
    return replace(given, mask=Mask(*rng.integers(2 * tokens, size=(2, GROUP)), int(rng.integers(2 * tokens))))


def _limits(rng, kv, full):
    """Heads whose sums and scores are where a bit of a carry, a comparison, a shift is told from its neighbours."""
    fmt, length = Widths(kv).fmt, kv.head_dim

    def head(q, k, v=None, low=0, high=0, sink=NONE):
        """One of these numbers, those of K and V times powers of two."""
        scales = [np.full(len(k), E8M0.bias + by) if fmt is not BF16 else np.zeros(len(k)) for by in (low, high)]
        v = rng.uniform(1, 2, (len(k), length)) * 2.0 ** 8 if v is None else v
        rows = [encode(fmt, np.array(each) * (2.0 ** by if fmt is BF16 else 1))
                for each, by in ((k, low), (v / 2 if fmt is not BF16 else v, high))]
        return Head(kv, encode(FP32, np.array(q)), *rows, *(each.astype(np.uint8) for each in scales),
                    Mask.of(len(q), len(k)), np.broadcast_to(sink, len(q)).astype(np.int64))

    # Sums of a single bit, too large for a score; scores just below the largest
    rows, columns = np.ogrid[:24, :length]
    single = (columns == np.clip(8 - rows, 0, length - 1)) * 2.0 ** (np.maximum(rows - 8, 0) - 9)
    yield head(np.tile(2.0 ** (100 - np.arange(length)), (GROUP, 1)), single)
    for sign in 1, -1:
        yield head(np.full((GROUP, length), 4 * (2 - 2**-8)), sign * np.array([[240, 15, 0.9375] + [0] * (length - 3)]))
    for top in range(10, 32):
        k, first = 2.0 ** rng.integers(-6, 7), np.arange(length) == 0
        yield head(np.outer([2.0**top / k, -(2.0**top) / k], first), k * first[None])
    # Fractions of all pieces of the table
    for n in range(16):
        piece = np.arange(full) + full * (n % 2)
        k = np.zeros((full, length))
        k[:, 0], k[:, 1], k[:, 2] = piece // 8 / 8, piece % 8 / 64, rng.integers(1, 9, full) / 8
        q = np.ones((GROUP, length))
        q[:, 2] = rng.integers(1, 4, GROUP) / 256
        yield head(q, k)
    # Halves of a score's last place, at shifts by 32 and by 48
    for low in (-4, -20):
        for _ in range(3):
            q = rng.uniform(1, 2, (GROUP, length)) * rng.choice([-1, 1], (GROUP, length))
            k = decode(fmt, _code(rng, fmt, np.full((full, length), 14 if fmt is not BF16 else E8M0.bias + 7)))
            yield head(q, k, low=low + (fmt is BF16))
    # Sums of the most that there are, which then shift by one
    for tokens, high in (24, 0), (full, 117), (28, 114), (full - 1, -124):
        k = np.where(np.arange(full) < tokens, 1, 2)[:, None] * (np.arange(length) == 0)
        v = rng.uniform(1.6, 2, (full, length)) * 256 * np.where(np.arange(length) % 2, -1, 1)
        yield head(np.full((GROUP, length), 1 - 2**-8), k, v, high=high)
    # Scores far from zero, and sums of powers far from those before
    for top in range(7, 11):
        for sign in 1, -1:
            q = rng.normal(size=(GROUP, length)) * 2.0 ** (top - 6)
            q[:, 0] = sign * rng.uniform(1, 2, GROUP) * 2.0**top
            k = rng.normal(size=(groups := 2 * Widths(kv).tokens + 1, length))
            k[:, 0] = 1
            yield head(q, k, rng.normal(size=(groups, length)))
    # Single bits of all places, of which scores are too large
    steps = np.minimum(np.arange(length), 8)
    for top in range(11, 24):
        for sign in 1, -1:
            yield head(np.tile(sign * 2.0 ** (top - steps), (GROUP, 1)), np.diag(2.0**steps))
    # Scores of which all places matter, as the query's largest element meets zeros: of a large element, smaller ones,
    # and a beat that is smaller still
    for by in range(10, 28) if fmt is BF16 else ():
        q, k = rng.uniform(2**9, 2**10, (GROUP, length)), rng.uniform(1, 2, (full, length)) * 2.0**-by
        beat = np.arange(length) // Widths(kv).elements
        k[:, beat == by % 2] *= 2.0 ** (by - 10)
        first = beat.searchsorted(by % 2)
        k[:, first:first + 2] = rng.uniform(1, 2), 0
        q[:, first + 1] *= 16
        yield head(q, k)
    for bit in range(6, 11):
        yield head(np.ones((GROUP, length)), np.zeros((2, length)), sink=np.array([1, -1]) * (
            (1 << bit) + rng.integers(20, size=GROUP) << FRACTION))


def _blind(rng, kv, size):
    """Pairs of heads: a large one, and one of small numbers of whose first group of tokens a query sees nothing."""
    for high, low in (120, 100), (140, 90), (160, 120), (200, 20):
        for n, top in enumerate((high, low)):
            given = draw(rng, kv, GROUP, 2 * size, masked=False)
            v, v_scales = _elements(rng, kv, 2 * size, top)
            first = np.arange(GROUP) * size * n
            yield replace(given, v=v, v_scales=v_scales, mask=Mask(first, np.full(GROUP, 2 * size)))


def _sums(rng, kv, tokens):
    """A head whose sums of powers have many places: most scores are near the largest, some far below."""
    fmt, given = Widths(kv).fmt, draw(rng, kv, GROUP, tokens, masked=False)
    scores = np.where(rng.random(tokens) < 0.8, rng.uniform(0.5, 1, tokens), -rng.uniform(7, 13, tokens))
    k, queries = np.outer(scores, np.arange(kv.head_dim) == 0), rng.uniform(0.8, 0.99, given.queries.shape)
    scales = np.full(tokens, E8M0.bias * (fmt is not BF16), np.uint8)
    return replace(given, queries=encode(FP32, queries), k=encode(fmt, k), k_scales=scales)


def _operands(rng, kv):
    """Heads of queries whose elements lack a bit of being rounded beyond all that there are; and of such as are so much
    smaller than the largest that a single bit says so."""
    tokens, place = 2 * Widths(kv).tokens, np.add.outer(np.arange(GROUP), np.arange(kv.head_dim))
    near = [np.full_like(place, 127) << 23 | 0x7FFFFF ^ 1 << 10 + (place + n) % 13 for n in range(13)]
    small = [np.where((place + n) % kv.head_dim, 220 - (16 << (place + n) % 4) - rng.integers(4, size=place.shape), 220)
             << 23 for n in range(kv.head_dim)]
    for queries, top in *((each, 127) for each in near), *((each, 34) for each in small):
        k, k_scales = _elements(rng, kv, tokens, top)
        signs = rng.integers(2, size=place.shape) << 31
        yield replace(draw(rng, kv, GROUP, tokens, masked=False), queries=(queries | signs).astype(np.uint32), k=k,
                      k_scales=k_scales)


def _wrong(rng, kv, **options):
    """Good heads, and between them such whose commands or streams are wrong, also in more than one way."""
    wrong = [
        {"flagged": 0}, {"commands": {"queries": 0}}, {"broken": 1}, {"commands": {"queries": GROUP + 1}},
        *({"commands": {"tokens": 5 + off}} for off in (-4, -1, 1, 4, 20)),
        *({"broken": off} for off in (-1, -3, -10, 2, 20)), *({"flagged": at} for at in (3, 7, 11)),
        {"commands": {"queries": 0}, "broken": -1}, {"flagged": 3, "broken": -1},
        {"commands": {"tokens": 2}, "flagged": 15},
    ]
    fields = {"commands": {}, "broken": {}, "flagged": set()}
    for n, each in enumerate(wrong):
        for what, value in each.items():
            if what == "flagged":
                fields[what].add((3 * n + 1, value))
            else:
                fields[what][3 * n + 1] = value
    return Job(kv, GROUP, [draw(rng, kv, GROUP, 5) for _ in range(3 * len(wrong))], **options, **fields)
