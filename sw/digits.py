# SPDX-License-Identifier: Apache-2.0
"""A small network that reads handwritten digits: its data, its training, and its inference on an engine.

The images are the 1,797 of 8 x 8 pixels that scikit-learn carries (from the UCI set "Optical
Recognition of Handwritten Digits"). Every fifth is held out. Training is a few hundred milliseconds
of numpy and gives the same weights every time.
"""

from typing import NamedTuple

import numpy as np

from golden.formats import BF16, FP32, decode
from sw.quantize import gemm

__all__ = ["SIZES", "Digits", "Layer", "forward", "infer", "load", "train"]

SIZES = (64, 160, 96, 10)       # pixels, two hidden layers, digits


class Digits(NamedTuple):
    """Images and what they show."""

    images: np.ndarray      # (count, 64) float32, 0 to 1
    labels: np.ndarray      # (count,) int


class Layer(NamedTuple):
    """`x @ w.T + b`."""

    w: np.ndarray           # (N, K) float32
    b: np.ndarray           # (N,) float32


def load():
    """The digits to train on, and those held out."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images, labels = np.float32(found.data / 16), found.target
    held_out = np.arange(len(images)) % 5 == 0
    return Digits(images[~held_out], labels[~held_out]), Digits(images[held_out], labels[held_out])


def train(digits, *, epochs=40, batch=32, rate=2e-3, decay=1e-4, seed=0):
    """Layers of `SIZES` that read `digits`: cross entropy, AdamW (Loshchilov and Hutter, 2019)."""
    random = np.random.default_rng(seed)
    layers = [Layer(np.float32(random.normal(0, np.sqrt(2 / k), (n, k))), np.zeros(n, np.float32))
              for k, n in zip(SIZES, SIZES[1:], strict=False)]
    weights = [array for layer in layers for array in layer]        # changed in place below
    means, squares = ([np.zeros_like(array) for array in weights] for _ in range(2))
    wanted = np.eye(SIZES[-1], dtype=np.float32)[digits.labels]
    step = 0
    for epoch in range(epochs):
        pace = rate * (1 - epoch / epochs)
        for chosen in np.array_split(random.permutation(len(wanted)), len(wanted) // batch):
            step += 1
            slopes = _slopes(layers, digits.images[chosen], wanted[chosen])
            for array, slope, mean, square in zip(weights, slopes, means, squares, strict=True):
                mean += 0.1 * (slope - mean)
                square += 0.001 * (slope ** 2 - square)
                ahead = mean / (1 - 0.9 ** step) / (np.sqrt(square / (1 - 0.999 ** step)) + 1e-8)
                array -= np.float32(pace) * (ahead + np.float32(decay) * array)
    return layers


def _slopes(layers, images, wanted):
    """Gradient of the loss by each layer's w and b."""
    inputs, logits = _activations(layers, images)
    error = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = (error / error.sum(axis=1, keepdims=True) - wanted) / np.float32(len(images))
    slopes = []
    for layer, x in zip(reversed(layers), reversed(inputs), strict=True):
        slopes = [error.T @ x, error.sum(axis=0), *slopes]
        error = error @ layer.w * (x > 0)
    return slopes


def _activations(layers, x):
    """The input of each layer, and the logits."""
    inputs = []
    for layer in layers:
        inputs.append(x)
        y = x @ layer.w.T + layer.b
        x = np.maximum(y, 0)
    return inputs, y


def forward(layers, images):
    """Logits (count, 10) in float32: what the quantized network is compared with."""
    return _activations(layers, images)[1]


def infer(layers, images, scheme, multiply):
    """Logits (count, 10) of the quantized network, every product of matrices by `multiply`.

    Hidden layers leave the engine as BF16, the logits as FP32. Between layers come the rectifier and
    the next quantization.

    Parameters
    ----------
    layers : list of Layer
    images : array (count, 64)
    scheme : sw.quantize.Scheme
    multiply : callable
        Takes a `golden.matmul.Gemm`, returns its results as codes.
    """
    x = images
    for layer in layers[:-1]:
        y = multiply(gemm(scheme, x, layer.w, bias=layer.b, y_format="bf16"))
        x = np.maximum(decode(BF16, y), 0)
    return decode(FP32, multiply(gemm(scheme, x, layers[-1].w, bias=layers[-1].b)))
