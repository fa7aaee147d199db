# SPDX-License-Identifier: Apache-2.0
"""The network that reads digits, and `make digits` on few of them."""

import json
import re

import numpy as np
import pytest

from golden import matmul
from scripts import digits as demo
from scripts.area import Area
from sw import digits, quantize


@pytest.fixture(scope="module")
def network():
    learned, held_out = digits.load()
    return digits.train(learned), learned, held_out


def test_every_fifth_digit_is_held_out(network):
    _, learned, held_out = network
    assert len(learned.labels) == 1437 and len(held_out.labels) == 360
    assert 0 == learned.images.min() < learned.images.max() == 1


def test_training_ends_well_and_always_alike(network):
    layers, learned, held_out = network
    right = digits.forward(layers, held_out.images).argmax(axis=1) == held_out.labels
    assert right.mean() >= 0.95
    for again, layer in zip(digits.train(learned), layers, strict=True):
        np.testing.assert_array_equal(again.w, layer.w)
        np.testing.assert_array_equal(again.b, layer.b)


@pytest.mark.parametrize("name", quantize.SCHEMES)
def test_quantized_network_reads_nearly_as_well(network, name):
    layers, _, held_out = network
    scheme = quantize.SCHEMES[name]
    logits = digits.infer(layers, held_out.images, scheme,
                          lambda gemm: matmul.matmul(scheme.family, gemm, (2, 16))[0])
    assert (logits.argmax(axis=1) == held_out.labels).mean() >= 0.95


def test_operands_carry_their_scales():
    a, w = np.array([[1.0, -3.0], [0, 0]]), np.array([[448.0, 0.1]])
    gemm = quantize.gemm(quantize.SCHEMES["fp8"], a, w)
    np.testing.assert_array_equal(gemm.row_scales, np.float32([3 / 448, 1]))
    np.testing.assert_array_equal(gemm.column_scales, np.float32([1]))
    restored, _ = quantize.dequantize(gemm)
    np.testing.assert_allclose(restored, a, rtol=0.07)


def test_run_prints_and_reports(tmp_path, capsys, monkeypatch):
    """A few digits on the smallest engine; its area is made up."""
    monkeypatch.setattr(demo, "breakdown", _area)
    demo.main(["--config", "configs/nano.toml", "--formats", "fp8", "--count", "5", "--out", str(tmp_path),
              "--json"])
    printed = capsys.readouterr()
    figures = {figure["name"]: figure["value"] for figure in json.loads(printed.out)["figures"]}
    assert figures["digits.equal.fp8"] == 5 * (160 + 96 + 10)
    assert "yes, 1,330" in printed.err
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 5                          # three plots, the array, and what a head looks at
    page = re.sub(r"data:image/png;base64,[^\"]*", "data:", page)
    addresses = re.findall(r"(?:https?:)?//[\w.]+|(?:src|href)=.[^d#][^>]*", page)
    assert set(addresses) <= {"http://www.w3.org", "//www.w3.org"}, "the page must need nothing else"


def test_a_failure_ends_the_run(tmp_path, monkeypatch):
    """By its own words, and without the work that waits."""
    monkeypatch.setattr(demo, "breakdown", _area)
    monkeypatch.setattr(demo, "infer", _fail)
    with pytest.raises(SystemExit, match="^digits: fp8: 3 results differ$"):
        demo.main(["--config", "configs/nano.toml", "--formats", "fp8", "--count", "5", "--out", str(tmp_path)])


def _fail(name, *_):
    raise AssertionError(f"{name}: 3 results differ")


def _area(engine, library, progress):
    parts = {"array": 100, "drain": 20, "accumulators": 3, "scales and bias": 2, "control": 1}
    return Area("cells", None, parts, 1234)


def test_count_is_checked():
    with pytest.raises(SystemExit, match="^digits: --count must be 1 to 360, not 0$"):
        demo.main(["--count", "0"])
