# SPDX-License-Identifier: Apache-2.0
"""Run work of your own on the simulated hardware, compared with golden bit for bit.

    scripts/simulate.py matmul --config configs/small.toml --a A.npy --w W.npy --format fp8 --out Y.npy
    scripts/simulate.py matmul ... --scales S.npz --output bf16 --stall 0.5 --seed 7
    scripts/simulate.py matmul ... --golden
    scripts/simulate.py attention --config configs/nano.toml --q Q.npy --k K.npy --v V.npy --causal --out O.npy
    scripts/simulate.py vector rms_norm --x X.npy --y W.npy --output e4m3 --quantize row --out Y.npy
    scripts/simulate.py kvcache --trace sim/traces/kvcache/fork.json
"""

import argparse
import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from rich.console import Console

from golden import config, matmul
from golden.attention import join
from golden.config import KV_FORMATS, KvCache
from golden.formats import FORMATS, FP32, MX_BLOCK, decode
from scripts import vector
from scripts.measure import distance, utilization
from sim import kvcache
from sw import attention, quantize

MATMUL = """\
Y = A @ W.T on the matmul engine: A is (M, K), W is (N, K), as in a linear layer.

Arrays of floating point are quantized: each row of A and each row of W (an output channel) is divided
by a scale that brings its largest magnitude to the format's largest value, and the scales are
multiplied back in the drain. Arrays of unsigned integers are codes of the format, taken as they are.

--scales is an .npz file with any of: row_scales (M,) and column_scales (N,), used in place of those;
bias (N,) and c (M, N), added; a_scales (M, K/32) and w_scales (N, K/32), the E8M0 codes of the blocks
of operands given as MX codes. In FP32, in this order, each step rounded:
  Y = round(sum) * row_scales * column_scales + bias + c, rounded to --output."""

ATTENTION = """\
O = softmax(scale Q @ K.T) @ V on the attention unit: Q is (queries, head_dim), K and V are (tokens, head_dim),
of one KV head. Queries may be those of its group, of several tokens, or both; more than the unit takes at a time
go in several passes over the tokens.

Keys and values of floating point are rounded as the KV cache rounds them. Arrays of unsigned integers are codes of
its format, taken as they are; in FP8 with the E8M0 codes of their scales, (tokens,). Head_dim is that of the arrays,
whatever the configuration says.

A query sees all tokens; with --causal those up to its position; with --window W the last W of them, and the first
--sinks S. --sink gives each query a logit of its own that takes part in the sum of all powers, without a value, -inf
for none. --part leaves the division to be done when parts are joined (golden.attention.join), and --out is an .npz
file with rows, totals and exponents: sums over 2**exponents."""

KVCACHE = """\
Operations on the KV cache, with what each is expected to give, from JSON files: prompts and tokens, or the
controller's commands. docs/kvcache.md describes them; sim/traces/kvcache holds some. After every command
the invariants are checked, and that one that is refused has changed nothing. The RTL is then given the same
commands; its completions, and all of its tables at the end, are compared bit for bit."""

SHAPES = {"row_scales": "m", "column_scales": "n", "bias": "n", "c": "mn", "a_scales": "mb", "w_scales": "nb"}


def main(argv=None):
    layout = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(description=__doc__, **layout)
    blocks = parser.add_subparsers(required=True, metavar="BLOCK")
    add_matmul(blocks.add_parser("matmul", help="a product of matrices", description=MATMUL, **layout))
    add_attention(blocks.add_parser("attention", help="softmax(Q @ K.T) @ V", description=ATTENTION, **layout))
    vector.add_arguments(blocks.add_parser("vector", help="norms, activations, scales and the like", **layout))
    add_kvcache(blocks.add_parser("kvcache", help="traces of KV-cache operations", description=KVCACHE, **layout))
    for each in blocks.choices.values():
        add_simulation(each)
    arguments = parser.parse_args(argv)
    try:
        if not 0 <= arguments.stall < 1:
            raise ValueError(f"--stall must be at least 0 and below 1, not {arguments.stall}")
        found = arguments.run(arguments)
    except (ValueError, RuntimeError, OSError, AssertionError) as error:
        sys.exit(f"simulate: {error}")
    print(json.dumps(found, indent=1) if arguments.json else "\n".join(arguments.show(found)))


def add_simulation(parser):
    """What all simulations have in common."""
    add = parser.add_argument
    add("--stall", type=float, default=0.0, metavar="P",
        help="probability with which every port idles or stalls in a cycle (default: 0)")
    add("--seed", type=int, default=0, help="of the stalls (default: 0)")
    add("--waves", action="store_true", help="record waveforms")
    add("--json", action="store_true", help="print what was found as JSON")


def add_matmul(parser):
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="chip configuration in TOML")
    add("--a", type=Path, required=True, metavar="A.npy", help="activations, (M, K)")
    add("--w", type=Path, required=True, metavar="W.npy", help="weights, (N, K)")
    add("--scales", type=Path, metavar="S.npz", help="scales, bias and C of your own, see above")
    add("--format", default="fp8", choices=quantize.SCHEMES, metavar="FORMAT",
        help="; ".join(f"{name} ({scheme.operands})" for name, scheme in quantize.SCHEMES.items())
        + ". An engine that does not multiply it is changed to the datapath family that does")
    add("--output", default="fp32", choices=matmul.RESULT_FORMATS, help="results' format (default: fp32)")
    add("--golden", action="store_true", help="the reference alone, with the cycles that it foretells")
    add("--out", type=Path, metavar="Y.npy", help="write the results, float32 (M, N)")
    add("--codes", action="store_true", help="write them as codes of --output")
    parser.set_defaults(run=run_matmul, show=show_matmul)


def run_matmul(arguments):
    """Everything that is known of the product, and `--out` written."""
    scheme = quantize.SCHEMES[arguments.format]
    section = scheme.engine(config.load(arguments.config).matmul)
    a = read_operand("--a", arguments.a, scheme.a_format)
    w = read_operand("--w", arguments.w, scheme.w_format)
    if a.shape[1] != w.shape[1]:
        raise ValueError(f"--w must be (N, {a.shape[1]}), with the K of --a, not {w.shape}")
    m, n, k = shape = len(a), len(w), a.shape[1]
    for name, size in zip("mnk", shape, strict=True):
        most = getattr(section, f"{name}_max")
        if not 1 <= size <= most:
            raise ValueError(f"{name.upper()} must be 1 to {most}, as {name}_max in {arguments.config} says, "
                             f"not {size}")
    given = read_scales(arguments.scales, m=m, n=n, b=-(-k // MX_BLOCK)) if arguments.scales else {}
    gemm = quantize.gemm(scheme, a, w, y_format=arguments.output, **given)

    found = {"config": str(arguments.config), "format": arguments.format, "family": section.family,
             "output": arguments.output, "m": m, "n": n, "k": k, "macs": m * n * k}
    if arguments.golden:
        codes, nans = matmul.matmul(section.family, gemm, (section.rows, section.lanes))
        found |= {"source": "golden", "cycles": matmul.cycles(
            section, shape, a_format=gemm.a_format, w_format=gemm.w_format, mx=gemm.mx)}
    else:
        run, waves = run_rtl(section, gemm, arguments)
        codes, nans = run.y, run.nans
        found |= {"source": "rtl", "equal": m * n, "cycles": run.cycles, "stall": arguments.stall,
                  "seed": arguments.seed} | ({"waves": waves} if arguments.waves else {})
    y = decode(FORMATS[arguments.output], codes)
    found |= {"utilization": utilization(section, gemm, found["cycles"]),
              "nans": nans,
              "error": {name: distance(y, product(*operands, given)) for name, operands in
                        (("operands", quantize.dequantize(gemm)), ("given", (a, w)))
                        if name == "operands" or a.dtype.kind == w.dtype.kind == "f"}}
    if arguments.out:
        np.save(arguments.out, codes if arguments.codes else np.float32(y))
        found["out"] = str(arguments.out)
    return found


def run_rtl(section, gemm, arguments):
    """The `sim.matmul.Run` of a GEMM and the file of its waveforms."""
    from hw.matmul.ports import Error
    from sim.matmul import Job, run

    job, log = Job(section, [gemm], stall=arguments.stall, seed=arguments.seed), StringIO()
    progress = "simulating (a new engine is built by Verilator first, which takes about a minute)"
    with Console(stderr=True).status(progress), redirect_stdout(log):
        (done,), _ = run(job, waves=arguments.waves)
    print(log.getvalue(), end="", file=sys.stderr)
    if done.error:
        raise RuntimeError(f"the engine refused the product: {Error(done.error).name}")
    return done, str(Path(log.getvalue().rpartition("; ")[2].strip()).parent / "dump.vcd")


def read_operand(option, path, format):
    """A matrix of real values or of codes."""
    values = np.load(path)
    if values.ndim != 2:
        raise ValueError(f"{option} must be a matrix, not of shape {values.shape}")
    if values.dtype.kind == "f":
        return np.float64(values)
    fmt = FORMATS[format]
    if values.dtype == np.int8 and format == "int8":
        return values.view(np.uint8)
    if values.dtype.kind != "u":
        raise ValueError(f"{option} must hold real values or unsigned codes of {fmt!r}, not {values.dtype}")
    if (largest := values.max(initial=0)) >> fmt.width:
        raise ValueError(f"{option} must hold codes of {fmt!r}, 0 to {(1 << fmt.width) - 1}, not {largest}")
    return values


def read_scales(path, **sizes):
    """Scales, bias and C from an .npz file, by name."""
    found = dict(np.load(path))
    for name, values in found.items():
        if name not in SHAPES:
            raise ValueError(f"--scales may hold {', '.join(SHAPES)}, not {name!r}")
        wanted = tuple(sizes[letter] for letter in SHAPES[name])
        if values.shape != wanted:
            raise ValueError(f"--scales: {name} must have shape {wanted}, not {values.shape}")
        if SHAPES[name][-1] != "b":
            found[name] = np.float32(values)
        elif values.dtype != np.uint8:
            raise ValueError(f"--scales: {name} must be uint8, codes of E8M0, not {values.dtype}")
    return found


def product(a, w, given):
    """`a @ w.T + bias + c` in float64."""
    return a @ w.T + np.float64(given.get("bias", 0)) + np.float64(given.get("c", 0))


def show_matmul(found):
    """What was found, for people."""
    shape = "({m}, {n}, {k})".format(**found)
    yield f"{found['family']} engine, {found['format']}, (M, N, K) = {shape}, results in {found['output']}"
    if found["source"] == "rtl":
        yield f"RTL = golden bit for bit in all {found['equal']:,} results"
    yield f"{found['cycles']:,} cycles{' foretold' * (found['source'] == 'golden')}, {found['utilization']:.1%} of peak"
    for name, text in ("given", "the arrays given"), ("operands", "the quantized operands"):
        if name in found["error"]:
            error = found["error"][name]
            yield f"against float64 of {text}: rms {error['rms']:.2e} relative, max {error['max']:.2e}"
    if found["nans"]:
        yield f"{found['nans']:,} results are NaN"
    yield from (f"{name}: {found[name]}" for name in ("waves", "out") if name in found)


def add_attention(parser):
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="chip configuration in TOML")
    add("--q", type=Path, required=True, metavar="Q.npy", help="queries, (queries, head_dim)")
    add("--k", type=Path, required=True, metavar="K.npy", help="keys, (tokens, head_dim)")
    add("--v", type=Path, required=True, metavar="V.npy", help="values, (tokens, head_dim)")
    add("--k-scales", type=Path, metavar="S.npy", help="of keys that are codes in FP8, (tokens,)")
    add("--v-scales", type=Path, metavar="S.npy", help="of values that are codes in FP8, (tokens,)")
    add("--format", choices=KV_FORMATS, help="of keys and values (default: that of the configuration)")
    add("--scale", type=float, metavar="F", help="of the scores (default: 1 / sqrt(head_dim))")
    add("--causal", nargs="?", const="", metavar="P.npy",
        help="queries see what is not behind them; P gives their positions (default: they are the last tokens)")
    add("--window", type=int, metavar="W", help="they see the last W tokens alone, their own among them")
    add("--sinks", type=int, default=0, metavar="S", help="and the first S (default: 0)")
    add("--sink", type=Path, metavar="L.npy", help="a logit for each query that has no value, (queries,)")
    add("--part", action="store_true", help="do not divide")
    add("--golden", action="store_true", help="the reference alone")
    add("--out", type=Path, metavar="O.npy", help="write the results, float32 (queries, head_dim)")
    parser.set_defaults(run=run_attention, show=show_attention)


def run_attention(arguments):
    """Everything that is known of the rows, and `--out` written."""
    chip = config.load(arguments.config)
    name = arguments.format or chip.kvcache.format
    given = {letter: read_operand(f"--{letter}", getattr(arguments, letter), "bf16" if name == "bf16" else "e4m3")
             for letter in "kv"}
    given["q"] = q = np.load(arguments.q)
    if q.ndim != 2 or q.dtype.kind != "f":
        raise ValueError(f"--q must be a matrix of real values, not {q.dtype} of shape {q.shape}")
    (queries, size), tokens = q.shape, len(given["k"])
    for letter in "kv":
        if given[letter].shape != (tokens, size):
            raise ValueError(f"--{letter} must be (tokens, {size}), with the head_dim of --q and the tokens of --k, "
                             f"not {given[letter].shape}")
    try:
        kv = KvCache(**chip.kvcache.model_dump() | {"head_dim": size, "format": name})
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"there is no KV cache with {problem['loc'][0]} = {problem['input']}: "
                         f"{problem['msg'].removeprefix('Value error, ')}") from None
    most = kv.table * kv.block_tokens
    if not (queries and 1 <= tokens <= most):
        raise ValueError(f"there must be a query, not {queries}, and 1 to {most} tokens, as table x block_tokens in "
                         f"{arguments.config} says, not {tokens}")
    options = {"scale": arguments.scale, "mask": read_mask(arguments, queries, tokens),
               "sink": arguments.sink and read_numbers("--sink", arguments.sink, "f", queries)}
    scales = {f"{letter}_scales": read_row_scales(arguments, letter, given[letter], kv) for letter in "kv"}
    head = attention.head(kv, **given, **options, **scales, part=arguments.part)
    passes = head.passes(chip.attention.group)

    found = {"config": str(arguments.config), "format": name, "queries": queries, "head_dim": size,
             "tokens": tokens, "group": chip.attention.group, "passes": len(passes)}
    if arguments.golden:
        attended = head.attended
        found |= {"source": "golden"}
    else:
        runs, waves = run_heads(kv, chip.attention.group, passes, arguments)
        attended = attention.gather([each.attended for each in runs])
        cycles = runs[-1].results[-1] - runs[0].beats[0] + 1
        found |= {"source": "rtl", "equal": attended.rows.size, "cycles": cycles,
                  "beats": sum(len(each.beats) for each in runs), "stall": arguments.stall,
                  "seed": arguments.seed} | ({"waves": waves} if arguments.waves else {})
    rows = decode(FP32, attended.rows)
    whole = join([attended]) if arguments.part else rows
    found |= {"nans": int(np.isnan(rows).sum()), "error": {"stored": distance(whole, head.reference)}}
    if given["k"].dtype.kind == given["v"].dtype.kind == "f":
        found["error"]["given"] = distance(whole, attention.reference(**given, **options))
    if arguments.out:
        if arguments.part:
            np.savez(arguments.out, rows=np.float32(rows), totals=np.float32(decode(FP32, attended.totals)),
                     exponents=attended.exponents)
        else:
            np.save(arguments.out, np.float32(rows))
        found["out"] = str(arguments.out)
    return found


def run_heads(kv, group, heads, arguments):
    """The `sim.attention.Run` of each head and the file of waveforms."""
    from sim.attention import Job, run

    job, log = Job(kv, group, heads, stall=arguments.stall, seed=arguments.seed), StringIO()
    progress = "simulating (a new unit is built by Verilator first, which takes about a minute)"
    with Console(stderr=True).status(progress), redirect_stdout(log):
        runs, _ = run(job, waves=arguments.waves)
    print(log.getvalue(), end="", file=sys.stderr)
    return runs, str(Path(log.getvalue().rpartition("; ")[2].strip()).parent / "dump.vcd")


def read_mask(arguments, queries, tokens):
    """What queries see."""
    positions = None
    for option, least in ("window", 1), ("sinks", 0):
        value = getattr(arguments, option)
        if value is not None and value < least:
            raise ValueError(f"--{option} must be at least {least}, not {value}")
    if arguments.causal:
        positions = read_numbers("--causal", arguments.causal, "iu", queries)
        if positions.min() < 0 or positions.max() >= tokens:
            raise ValueError(f"--causal must hold positions of tokens, 0 to {tokens - 1}, not "
                             f"{positions.min()} to {positions.max()}")
    elif arguments.causal is not None:
        if queries > tokens:
            raise ValueError(f"--causal without positions: there are {queries} queries and {tokens} tokens")
        positions = np.arange(tokens - queries, tokens)
    return attention.Mask.of(queries, tokens, positions=positions, window=arguments.window,
                             sinks=min(arguments.sinks, tokens))


def read_row_scales(arguments, letter, rows, kv):
    """Scales of rows that are codes."""
    path = getattr(arguments, f"{letter}_scales")
    codes = rows.dtype.kind != "f" and kv.format == "fp8"
    if codes != bool(path):
        raise ValueError(f"--{letter}-scales " + (f"must be given, as --{letter} holds codes in FP8" if codes else
                                                  f"is of codes in FP8, which --{letter} does not hold"))
    if not codes:
        return None
    scales = read_numbers(f"--{letter}-scales", path, "u", len(rows))
    if scales.max() > 255:
        raise ValueError(f"--{letter}-scales must hold codes of E8M0, 0 to 255, not {scales.max()}")
    return scales.astype(np.uint8)


def read_numbers(option, path, kinds, count):
    """So many numbers of some kind."""
    values = np.load(path)
    if values.shape != (count,) or values.dtype.kind not in kinds:
        what = {"f": "real values", "u": "unsigned codes", "iu": "integers"}[kinds]
        raise ValueError(f"{option} must hold {count} {what}, not {values.dtype} of shape {values.shape}")
    return values


def show_attention(found):
    """What was found, for people."""
    yield ("{format} keys and values: {queries} queries of {head_dim} elements, {tokens} tokens, {passes} passes of "
           "up to {group} queries".format(**found))
    if found["source"] == "rtl":
        yield f"RTL = golden bit for bit in all {found['equal']:,} results"
        yield (f"{found['cycles']:,} cycles from the first beat to the last result, of which {found['beats']:,} took a "
               "beat")
    for name, text in ("given", "the arrays given"), ("stored", "what the cache keeps"):
        if name in found["error"]:
            error = found["error"][name]
            yield f"against float64 of {text}: rms {error['rms']:.2e} relative, max {error['max']:.2e}"
    if found["nans"]:
        yield f"{found['nans']:,} results are NaN"
    yield from (f"{name}: {found[name]}" for name in ("waves", "out") if name in found)


def add_kvcache(parser):
    add = parser.add_argument
    add("--trace", type=Path, nargs="+", required=True, metavar="FILE", help="traces in JSON")
    add("--config", type=Path, metavar="FILE",
        help="chip configuration in TOML, of which a trace's own changes some (default: the smallest)")
    add("--golden", action="store_true", help="the reference alone")
    parser.set_defaults(run=run_kvcache, show=show_kvcache)


def run_kvcache(arguments):
    """Play the traces; what each did."""
    section = config.load(arguments.config).kvcache if arguments.config else None
    found = []
    for path in arguments.trace:
        trace = kvcache.read(path)
        try:
            player = kvcache.play(trace, section)
        except (kvcache.TraceError, ValueError) as error:
            raise type(error)("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
        found.append({"trace": str(path), "about": trace.get("about", ""), "source": "golden",
                      "steps": len(trace["steps"]), "commands": player.controller.counters["commands"],
                      "expectations": player.expectations})
        if not arguments.golden:
            cycles = replay(player, arguments)
            found[-1] |= {"source": "rtl", "equal": len(cycles), "cycles": sum(cycles), "stall": arguments.stall,
                          "seed": arguments.seed}
    return found


def replay(player, arguments):
    """Cycles of each command of a trace on the RTL, its tables read at the end."""
    player.dump()
    log, progress = StringIO(), "simulating (a new controller is built by Verilator first, which takes half a minute)"
    with Console(stderr=True).status(progress), redirect_stdout(log):
        cycles = kvcache.replay(player.job(arguments.stall, arguments.seed), arguments.waves)
    print(log.getvalue(), end="", file=sys.stderr)
    return cycles


def show_kvcache(found):
    """What was found, for people."""
    for each in found:
        yield "{trace}: {steps} steps, {commands} commands, {expectations} expectations hold".format(**each)
        if each["source"] == "rtl":
            yield "  RTL = golden bit for bit in all {equal:,} completions, {cycles:,} cycles".format(**each)


if __name__ == "__main__":
    main()
