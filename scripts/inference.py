# SPDX-License-Identifier: Apache-2.0
"""The network that reads digits on the simulated engine, layer by layer."""

from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO

import numpy as np

from golden.formats import FORMATS, decode
from golden.matmul import cycles
from scripts.measure import bound, distance, utilization
from sim.matmul import Job, run
from sw import digits, quantize

__all__ = ["Layer", "Outcome", "infer"]


@dataclass(frozen=True)
class Layer:
    """One product of matrices on the RTL.

    Attributes
    ----------
    shape : (int, int, int)
        M, N, K.
    cycles, foretold : int
        From command to last result: simulated, and by golden's formula, which leaves out MX (None).
    utilization, bound : float
        Of the array, and the best that its size allows for this shape.
    cause : str
        What sets the bound.
    error : float
        Relative rms error of the results against float64 on the same quantized operands.
    """

    shape: tuple
    cycles: int
    foretold: int
    utilization: float
    bound: float
    cause: str
    error: float

    @property
    def results(self):
        return self.shape[0] * self.shape[1]

    @property
    def macs(self):
        return self.results * self.shape[2]


@dataclass(frozen=True)
class Outcome:
    """The network in one format, every result equal to golden's in every bit.

    Attributes
    ----------
    name : str
        In `sw.quantize.SCHEMES`.
    engine : golden.config.Matmul
    logits : array (count, 10)
    layers : list of Layer
    """

    name: str
    engine: object
    logits: np.ndarray
    layers: list

    @property
    def title(self):
        return quantize.SCHEMES[self.name].title

    @property
    def read(self):
        """The digit read in each image."""
        return self.logits.argmax(axis=1)

    def total(self, what):
        """Sum over the layers of `cycles`, `results` or `macs`."""
        return sum(getattr(layer, what) for layer in self.layers)

    @property
    def utilization(self):
        """Of all layers together."""
        return sum(layer.utilization * layer.cycles for layer in self.layers) / self.total("cycles")


def infer(name, engine, layers, images, progress=lambda line: None):
    """The `Outcome` of a format.

    Parameters
    ----------
    name : str
    engine : golden.config.Matmul
    layers : list of sw.digits.Layer
    images : array (count, 64)
    progress : callable
        Receives a line of text before each layer.

    Raises
    ------
    AssertionError
        When a result of the RTL differs from golden's.
    """
    done = []

    def multiply(gemm):
        progress(f"layer {len(done) + 1} of {len(layers)}" if done else "Verilog, Verilator, layer 1")
        with redirect_stdout(StringIO()):
            (result,), _ = run(Job(engine, [gemm]))
        a, w = quantize.dequantize(gemm)
        y = decode(FORMATS[gemm.y_format], result.y)
        foretold = cycles(engine, gemm.shape, a_format=gemm.a_format, w_format=gemm.w_format, mx=gemm.mx)
        done.append(Layer(gemm.shape, result.cycles, foretold, utilization(engine, gemm, result.cycles),
                          *bound(engine, gemm), distance(y, a @ w.T + gemm.bias)["rms"]))
        return result.y

    logits = digits.infer(layers, images, quantize.SCHEMES[name], multiply)
    return Outcome(name, engine, logits, done)
