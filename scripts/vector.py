# SPDX-License-Identifier: Apache-2.0
"""Instructions of the vector engine on arrays of the user's: what `scripts/simulate.py vector` does."""

import sys
from contextlib import redirect_stdout
from io import StringIO
from math import prod
from pathlib import Path

import numpy as np
from rich.console import Console

from golden import config
from golden.formats import E8M0, FORMATS, FP32, MX_BLOCK, decode, encode
from golden.isa import Operation, Quantize
from golden.vector import LOG2E, QUANTIZED, Instruction, check, execute, pairs
from scripts.measure import distance

__all__ = ["add_arguments"]

ABOUT = """\
An operation on the rows of x, which lie along its last axis, and of y:
  mul       x * y; a copy or a cast without --y
  add       alpha * x + beta * y, with alpha = beta = 1 if not given; alpha * x + beta without --y
  rope      x * y, neighbours taken as complex numbers; with --halves, elements of the two halves of a row
  silu      x * y / (1 + exp(-x)); with --alpha, of 1 + 2**(alpha * x)
  rms_norm  x * y / sqrt(mean(x**2) + beta), beta = 1e-5 if not given
  softmax   of alpha * x, alpha = 1 if not given
  top_k     values and places of the --k largest of x * y, those of a row in an array (k, 2) of float64

y is as large as x, or one row for all, or one number a row; or, with --y-format e8m0, for mul and top_k of MX
elements (e4m3, e5m2, e2m1), the scales of blocks of 32, one row of them for all or a row each. Arrays of floating
point are rounded to the format, those of unsigned integers are codes of it. With --quantize, rows or blocks of 32
share a scale; what --out writes is multiplied by it, unless --codes asks for the codes."""


def add_arguments(parser):
    add = parser.add_argument
    add("operation", choices=[each.name.lower() for each in Operation], metavar="OP", help="see above")
    add("--config", type=Path, default=Path("configs/nano.toml"), metavar="FILE",
        help="chip configuration in TOML (default: %(default)s)")
    add("--x", type=Path, required=True, metavar="X.npy", help="rows, (..., length)")
    add("--y", type=Path, metavar="Y.npy", help="rows, a row, or numbers for rows")
    for name, more in (("x", ()), ("y", (E8M0.name,))):
        add(f"--{name}-format", default="bf16", choices=(*QUANTIZED[Quantize.NONE], *more),
            help="(default: %(default)s)")
    add("--output", default="bf16", choices=QUANTIZED[Quantize.NONE], help="results' format (default: bf16)")
    add("--quantize", default="none", choices=[each.name.lower() for each in Quantize],
        help="scales of rows or, in E8M0, of blocks, by the rule of OCP or rounded up (default: none)")
    add("--alpha", type=float, help="see above")
    add("--beta", type=float, help="see above")
    add("--k", type=int, default=1, help="of top_k (default: 1)")
    add("--halves", action="store_true", help="rope: partners are half a row apart in x, y (cosines, sines), results")
    add("--golden", action="store_true", help="the reference alone")
    add("--out", type=Path, metavar="R.npy", help="write the results, float32")
    add("--scales", type=Path, metavar="S.npy", help="write the scales: float32, of blocks codes of E8M0")
    add("--codes", action="store_true", help="write results as codes of --output")
    parser.description = ABOUT
    parser.set_defaults(run=run, show=show)


def run(arguments):
    """Everything that is known of the results, and files written."""
    section = config.load(arguments.config).vector
    operation, quantize = Operation[arguments.operation.upper()], Quantize[arguments.quantize.upper()]
    x = _codes("--x", arguments.x, arguments.x_format)
    shape, x = x.shape, _rows(x)
    y = _codes("--y", arguments.y, arguments.y_format) if arguments.y else None
    if y is not None:
        y = _rows(y)
        scales, blocks = arguments.y_format == E8M0.name, -(-x.shape[1] // MX_BLOCK)
        allowed = [(len(x), blocks), (1, blocks)] if scales else [x.shape, (1, x.shape[1]), (len(x), 1)]
        if y.shape not in allowed:
            raise ValueError(f"--y must be {', '.join(map(str, allowed[:-1]))} or {allowed[-1]}, not {y.shape}")
    instruction = Instruction(operation, arguments.x_format, arguments.y_format, arguments.output,
                              *_constants(arguments, operation, x, y), quantize, arguments.k)
    check(instruction, x.shape, section.row_max)
    if arguments.halves:
        x, y = pairs(x), y if y is None else pairs(y)
    found = {"config": str(arguments.config), "operation": arguments.operation, "shape": list(shape),
             "x_format": arguments.x_format, "output": arguments.output, "quantize": arguments.quantize}
    if arguments.golden:
        result = execute(instruction, x, y, lanes=section.lanes)
        found["source"] = "golden"
    else:
        one, waves = _rtl(section, instruction, x, y, arguments)
        result = one.result
        found |= {"source": "rtl", "equal": x.size, "cycles": one.cycles,
                  "rate": x.size / (section.lanes * one.cycles), "stall": arguments.stall, "seed": arguments.seed}
        found |= {"waves": waves} if arguments.waves else {}
    found["nans"] = result.nans

    if operation == Operation.TOP_K:
        values = np.stack([decode(FP32, result.scalars[..., 0]), result.scalars[..., 1]], -1)
        values = values.reshape(*shape[:-1], *values.shape[1:])
    else:
        values, scales = decode(FORMATS[arguments.output], result.codes), 1
        if result.scalars is not None:
            blocks = quantize != Quantize.ROW
            scales = decode(E8M0 if blocks else FP32, result.scalars)
            scales = np.repeat(scales, MX_BLOCK, -1)[:, :x.shape[1]] if blocks else scales
            if arguments.scales:
                np.save(arguments.scales, result.scalars if blocks else np.float32(scales))
        with np.errstate(all="ignore"):
            found["error"] = distance(values * scales, _float64(instruction, x, y))
        values = result.codes if arguments.codes else np.float32(values * scales)
        if arguments.halves:
            values = np.concatenate([values[:, ::2], values[:, 1::2]], -1)
        values = values.reshape(shape)
    if arguments.out:
        np.save(arguments.out, values)
        found["out"] = str(arguments.out)
    return found


def _rows(array):
    """The rows along the last axis."""
    return array.reshape(prod(array.shape[:-1]), array.shape[-1])


def show(found):
    """What was found, for people."""
    scaled = "" if found["quantize"] == "none" else f", scaled by {found['quantize']}"
    yield f"{found['operation']} of {tuple(found['shape'])}, {found['x_format']} to {found['output']}{scaled}"
    if found["source"] == "rtl":
        yield f"RTL = golden bit for bit in all of {found['equal']:,} elements"
        yield f"{found['cycles']:,} cycles, {found['rate']:.2f} elements a lane and cycle"
    if "error" in found:
        yield "against float64 of the same operands: rms {rms:.2e} relative, max {max:.2e}".format(**found["error"])
    if found["nans"]:
        yield f"{found['nans']:,} results are NaN"
    yield from (f"{name}: {found[name]}" for name in ("waves", "out") if name in found)


def _rtl(section, instruction, x, y, arguments):
    """The `sim.vector.Run` of an instruction and the file of its waveforms."""
    from hw.vector.ports import Error
    from sim.vector import Call, Job, run

    job, log = Job(section, [Call(instruction, x, y)], stall=arguments.stall, seed=arguments.seed), StringIO()
    progress = "simulating (a new engine is built by Verilator first, which takes half a minute)"
    with Console(stderr=True).status(progress), redirect_stdout(log):
        (done,), _ = run(job, waves=arguments.waves)
    print(log.getvalue(), end="", file=sys.stderr)
    if done.error:
        raise RuntimeError(f"the engine refused the instruction: {Error(done.error).name}")
    return done, str(Path(log.getvalue().rpartition("; ")[2].strip()).parent / "dump.vcd")


def _codes(option, path, format):
    """Codes from a file of numbers or codes."""
    values, fmt = np.atleast_1d(np.load(path)), FORMATS[format]
    if values.dtype.kind == "f":
        return encode(fmt, values)
    if values.dtype.kind != "u" or values.max(initial=0) >> fmt.width:
        raise ValueError(f"{option} must hold real values or unsigned codes of {fmt!r}, not {values.dtype}")
    return values.astype(fmt.dtype)


def _constants(arguments, operation, x, y):
    """alpha and beta: what was asked for, or what the operation is known with."""
    alpha, beta = arguments.alpha, arguments.beta
    match operation:
        case Operation.RMS_NORM:
            return 1 / x.shape[1], 1e-5 if beta is None else beta
        case Operation.SILU:
            return -LOG2E if alpha is None else alpha, 0.0
        case Operation.SOFTMAX:
            return (1 if alpha is None else alpha) * LOG2E, 0.0
    return 1 if alpha is None else alpha, beta if beta is not None else -0.0 if y is None else 1


def _float64(instruction, x, y):
    """What float64 has to say."""
    x = decode(FORMATS[instruction.x_format], x)
    y = np.ones_like(x[:1]) if y is None else decode(FORMATS[instruction.y_format], y)
    if instruction.y_format == E8M0.name:
        y = np.repeat(y, MX_BLOCK, -1)[:, :x.shape[1]]
    y = np.broadcast_to(y, x.shape)
    alpha, beta = instruction.alpha, instruction.beta
    match instruction.operation:
        case Operation.MUL:
            return x * y
        case Operation.ADD:
            return alpha * x + beta * y
        case Operation.ROPE:
            product = (x[:, ::2] + 1j * x[:, 1::2]) * (y[:, ::2] + 1j * y[:, 1::2])
            return np.stack([product.real, product.imag], -1).reshape(x.shape)
        case Operation.SILU:
            return x * y / (1 + 2 ** (alpha * x))
        case Operation.RMS_NORM:
            return x * y / np.sqrt(alpha * (x * x).sum(-1, keepdims=True) + beta)
        case Operation.SOFTMAX:
            power = 2 ** (alpha * x - (alpha * x).max(-1, keepdims=True))
            return power / power.sum(-1, keepdims=True)
