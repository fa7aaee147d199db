# SPDX-License-Identifier: Apache-2.0
"""The array's edges: operands decoded once, and brought to each array row at its time."""

from amaranth.hdl import Cat, Const, Mux, Signal

from golden.families import FORMAT_CODES
from hw.arith.dot import datapath

__all__ = ["delay", "feed"]


def feed(m, array, first, columns):
    """Feed an `Array`'s `first` group with its rows, and all `columns` with its weight beats."""
    activations, weights = (_uni_activations, _uni_weights) if array.family.aligned else (
        _exact_activations, _exact_weights)
    activations(m, array, first)
    weights(m, array, columns)


def delay(m, stages, name, *values, reset_less=True):
    """`values` after `stages` cycles."""
    for stage in range(stages):
        held = [Signal(len(value), name=f"{name}_{n}_{stage}", reset_less=reset_less)
                for n, value in enumerate(values)]
        m.d.sync += [new.eq(value) for new, value in zip(held, values, strict=True)]
        values = held
    return values


def _exact_activations(m, array, first):
    """Decode a row once and delay its part for array row r by r cycles."""
    bits, decode = array.family.bits, datapath(array.family.name).decode
    for row in range(array.rows):
        lanes, nans = [], []
        for k in range(row * array.lanes, (row + 1) * array.lanes):
            code = Signal(bits, name=f"code{k}")
            m.d.comb += code.eq(Mux(k < array.row.count, array.row.codes.word_select(k, bits), 0))
            lane, nan = decode(m, code, array.row.format, f"lane{k}")
            lanes.append(lane)
            nans.append(nan)
        a, nan, swap = delay(m, row + 1, f"a{row}", Cat(lanes), Cat(nans).any(), array.row.swap)
        for each in first:
            m.d.comb += each.a[row].eq(a), each.swap[row].eq(swap)
            if array.family.nan:
                m.d.comb += each.a_nan[row].eq(nan)


def _exact_weights(m, array, columns):
    """Bring a beat to the form that elements store, and delay its part for array row r by r cycles."""
    depth, recode = array.lanes * array.rows, datapath(array.family.name).recode
    codes = array.beat.codes
    for row in range(array.rows):
        for parity in range(2):
            lanes, nans = [], []
            for k in range(row * array.lanes, (row + 1) * array.lanes):
                wide, narrow = codes.word_select(k, 8), codes.word_select(parity * depth + k, 4)
                lane, nan = recode(m, wide, narrow, array.beat.format, f"weight{parity}_{k}")
                lanes.append(lane)
                nans.append(nan)
            w, nan = delay(m, row + 1, f"w{row}_{parity}", Cat(lanes), Cat(nans).any())
            for each in columns:
                m.d.comb += each.w[parity][row].eq(w)
                if array.family.nan:
                    m.d.comb += each.w_nan[parity][row].eq(nan)
        load, = delay(m, row + 1, f"load{row}", array.beat.columns, reset_less=False)
        for n, each in enumerate(columns):
            m.d.comb += each.load[row].eq(load.word_select(n, each.cols))


def _uni_activations(m, array, first):
    """The same for `Uni`, where the exponents of aligned rows arrive before all the rest."""
    uni, lead, given, aligned = datapath("uni"), datapath("uni").lead, array.row, array.row.aligned
    products = array.lanes // 4
    for row in range(array.rows):
        exact, wide = [], []
        for k in range(row * array.lanes, (row + 1) * array.lanes):
            code = Signal(8, name=f"code{k}")
            m.d.comb += code.eq(Mux(k < given.count, given.codes.word_select(k, 8), 0))
            exact.append(uni.exact_lane(m, code, f"lane{k}"))
        for k in range(row * products, (row + 1) * products):
            code = Signal(16, name=f"wide_code{k}")
            m.d.comb += code.eq(Mux(k < given.count, _pick(given.format, given.codes, k), 0))
            wide.append(uni.wide(m, code, given.format, f"wide{k}"))
        halves = [significand.word_select(n >> 1, 4) for significand, *_ in wide for n in range(4)]
        now = _choose(m, aligned, exact, wide, halves, f"a{row}")
        late = delay(m, lead, f"a{row}_late", *now, given.swap)
        significands, signs, nan, swap = delay(m, row + 1, f"a{row}", late[0], late[1], late[3], late[4])
        exponents, swap_exponents = delay(m, row + 1, f"a{row}_exponents", Mux(aligned, now[2], late[2]),
                                          Mux(aligned, given.swap, late[4]))
        is_aligned, = delay(m, row + lead, f"aligned{row}", aligned)
        for each in first:
            m.d.comb += [
                each.a[row].significands.eq(significands), each.a[row].signs.eq(signs),
                each.a[row].exponents.eq(exponents), each.a[row].aligned.eq(is_aligned),
                each.a_nan[row].eq(nan), each.swap[row].eq(Cat(swap, swap_exponents)),
            ]


def _uni_weights(m, array, columns):
    uni, lead, given, aligned = datapath("uni"), datapath("uni").lead, array.beat, array.beat.aligned
    depth, products, recode = array.lanes * array.rows, array.lanes // 4, datapath("fp8").recode
    for row in range(array.rows):
        for parity in range(2):
            exact, wide, half = [], [], given.codes.word_select(parity, 4 * depth)
            for k in range(row * array.lanes, (row + 1) * array.lanes):
                code, _ = recode(m, given.codes.word_select(k, 8), half.word_select(k, 4), given.format,
                                 f"weight{parity}_{k}")
                exact.append(uni.exact_lane(m, code, f"weight{parity}_{k}"))
            for k in range(row * products, (row + 1) * products):
                code, _ = recode(m, half.word_select(k, 8), half.word_select(k, 4), given.format,
                                 f"wide{parity}_{k}")
                both = Mux(given.format == FORMAT_CODES["bf16"], half.word_select(k, 16), code)
                wide.append(uni.wide(m, both, given.format, f"wide{parity}_{k}"))
            halves = [significand.word_select(n & 1, 4) for significand, *_ in wide for n in range(4)]
            now = _choose(m, aligned, exact, wide, halves, f"w{row}_{parity}")
            late = delay(m, lead, f"w{row}_{parity}_late", *now)
            significands, signs, nan, exponents = delay(
                m, row + 1, f"w{row}_{parity}", late[0], late[1], late[3], Mux(aligned, now[2], late[2]))
            for each in columns:
                w = each.w[parity][row]
                m.d.comb += [
                    w.significands.eq(significands), w.signs.eq(signs), w.exponents.eq(exponents),
                    each.w_nan[parity][row].eq(nan),
                ]
        late, = delay(m, lead, f"load{row}_late", given.columns, reset_less=False)
        load, load_exponents = delay(m, row + 1, f"load{row}", late, Mux(aligned, given.columns, late),
                                     reset_less=False)
        for n, each in enumerate(columns):
            m.d.comb += each.load[row].eq(Cat(load.word_select(n, each.cols),
                                              load_exponents.word_select(n, each.cols)))


def _pick(format, codes, k):
    """The k-th code, of 16 bits in BF16 and 8 else."""
    return Mux(format == FORMAT_CODES["bf16"], codes.word_select(k, 16), codes.word_select(k, 8))


def _choose(m, aligned, exact, wide, halves, name):
    """Significands, signs, exponents of one array row's lanes, and whether any is NaN."""
    significands, exponents, signs, nans = (Cat(column) for column in zip(*exact, strict=True))
    _, wide_exponents, wide_signs, wide_nans = zip(*wide, strict=True)
    chosen = []
    for label, one, other in (
            ("significands", significands, Cat(halves)),
            ("signs", signs, Cat(sign.replicate(4) for sign in wide_signs)),
            ("exponents", exponents, Cat(Cat(exponent, Const(0, 8)) for exponent in wide_exponents)),
            ("nans", nans, Cat(wide_nans))):
        signal = Signal(len(one), name=f"{name}_{label}")
        m.d.comb += signal.eq(Mux(aligned, other, one))
        chosen.append(signal)
    return *chosen[:3], chosen[3].any()
