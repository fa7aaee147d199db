# SPDX-License-Identifier: Apache-2.0
"""The command lines that run GEMMs and attention of the user's."""

import json

import numpy as np
import pytest

from golden.attention import Attended, join
from golden.formats import E4M3, FP32, decode, encode
from scripts import simulate

NANO = "configs/nano.toml"


@pytest.fixture
def matrices(tmp_path):
    """Files of A (9, 50) and W (11, 50), and the matrices."""
    random = np.random.default_rng(0)
    a, w = random.normal(size=(9, 50)), random.normal(size=(11, 50)) * np.arange(1, 12)[:, None]
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "w.npy", w)
    return tmp_path, a, w


def matmul(folder, *options, config=NANO):
    simulate.main(["matmul", "--config", config, "--a", str(folder / "a.npy"), "--w", str(folder / "w.npy"),
                   "--out", str(folder / "y.npy"), *options])
    return np.load(folder / "y.npy")


def test_rtl_and_golden_write_the_same(matrices, capsys):
    folder, a, w = matrices
    scales = {"bias": np.arange(11, dtype=np.float32), "c": np.ones((9, 11), np.float32)}
    np.savez(folder / "s.npz", **scales)
    options = "--scales", str(folder / "s.npz"), "--output", "bf16"
    y = matmul(folder, *options, "--stall", "0.3", "--seed", "5")
    assert "RTL = golden bit for bit in all 99 results" in capsys.readouterr().out
    np.testing.assert_array_equal(matmul(folder, *options, "--golden"), y)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, a @ w.T + scales["bias"] + scales["c"], atol=0.1 * np.abs(a @ w.T).max())


def test_json(matrices, capsys):
    matmul(matrices[0], "--golden", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["m"], found["n"], found["k"], found["macs"]) == (9, 11, 50, 9 * 11 * 50)
    assert found["cycles"] > found["macs"] / 64
    assert found["error"]["operands"]["rms"] < 1e-7 < found["error"]["given"]["rms"] < 0.05


def test_family_follows_the_format(matrices, capsys):
    matmul(matrices[0], "--golden", "--format", "int8")
    assert capsys.readouterr().out.startswith("int8 engine")


@pytest.mark.parametrize("name, limit", [("fp8", 0.05), ("int8", 0.02), ("mxfp8", 0.07), ("mxfp4", 0.25)])
def test_every_format_comes_near(matrices, name, limit):
    folder, a, w = matrices
    y = matmul(folder, "--golden", "--format", name, config="configs/small.toml")
    assert np.sqrt(np.mean((y - a @ w.T) ** 2) / np.mean((a @ w.T) ** 2)) < limit


def test_codes_are_taken_and_given_as_they_are(tmp_path):
    a = np.array([[0x38, 0x40]], np.uint8)                        # 1, 2
    w = np.array([[0x38, 0x38], [0x30, 0xB8]], np.uint8)          # 1, 1; 0.5, -1
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "w.npy", w)
    y = matmul(tmp_path, "--golden", "--codes", "--output", "e4m3")
    assert y.dtype == np.uint8 and decode(E4M3, y).tolist() == [[3, -1.5]]


def test_own_scales_are_divided_out_and_multiplied_back(matrices):
    folder, a, w = matrices
    rows, columns = np.full(9, 0.5, np.float32), np.full(11, 2, np.float32)
    np.savez(folder / "s.npz", row_scales=rows, column_scales=columns)
    y = matmul(folder, "--golden", "--scales", str(folder / "s.npz"))
    wanted = decode(E4M3, encode(E4M3, a / 0.5)) @ decode(E4M3, encode(E4M3, w / 2)).T
    np.testing.assert_allclose(y, wanted, rtol=1e-6)


@pytest.mark.parametrize("change, sentence", [
    ({"a": np.zeros((3, 4)), "w": np.zeros((5, 6))}, r"--w must be \(N, 4\), with the K of --a, not \(5, 6\)"),
    ({"a": np.zeros(4)}, r"--a must be a matrix, not of shape \(4,\)"),
    ({"a": np.zeros((3, 4), int)}, r"--a must hold real values or unsigned codes of E4M3, not int64"),
    ({"a": np.full((3, 4), 300, np.uint16)}, r"--a must hold codes of E4M3, 0 to 255, not 300"),
    ({"a": np.zeros((3, 600)), "w": np.zeros((2, 600))}, r"K must be 1 to 512, as k_max in .*nano.toml says, not 600"),
    ({"a": np.zeros((0, 4)), "w": np.zeros((2, 4))}, r"M must be 1 to 65535, as m_max in .*nano.toml says, not 0"),
    ({"s": {"bias": np.zeros(9)}}, r"--scales: bias must have shape \(11,\), not \(9,\)"),
    ({"s": {"gain": np.zeros(9)}}, r"--scales may hold row_scales, .*, not 'gain'"),
    ({"options": ["--stall", "1"]}, r"--stall must be at least 0 and below 1, not 1.0"),
    ({"options": ["--format", "mxfp4"]}, r"MXFP4 takes an engine with mx = True: needs lanes x rows = 32, .*"),
])
def test_what_cannot_be_done_is_refused(matrices, change, sentence):
    folder = matrices[0]
    for name in "aw":
        if name in change:
            np.save(folder / f"{name}.npy", change[name])
    options = change.get("options", [])
    if "s" in change:
        np.savez(folder / "s.npz", **change["s"])
        options = ["--scales", str(folder / "s.npz")]
    with pytest.raises(SystemExit, match=f"^simulate: {sentence}$"):
        matmul(folder, *options)


def test_codes_in_mx_need_their_scales(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 40), np.uint8))
    np.save(tmp_path / "w.npy", np.ones((3, 40), np.uint8))
    options = "--format", "mxfp4", "--golden"
    with pytest.raises(SystemExit, match="codes in MXFP4 need a_scales and w_scales of their blocks"):
        matmul(tmp_path, *options, config="configs/small.toml")
    np.savez(tmp_path / "s.npz", a_scales=np.full((2, 2), 128, np.uint8), w_scales=np.full((3, 2), 126, np.uint8))
    y = matmul(tmp_path, *options, "--scales", str(tmp_path / "s.npz"), config="configs/small.toml")
    assert y.tolist() == [[40 * 0.25] * 3] * 2


@pytest.fixture
def rows(tmp_path):
    """Files of Q (6, 64), K and V (20, 64), and the matrices."""
    random = np.random.default_rng(0)
    arrays = {"q": random.normal(size=(6, 64)), "k": random.normal(size=(20, 64)), "v": random.normal(size=(20, 64))}
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
    return tmp_path, arrays


def attention(folder, *options, out="o.npy"):
    (folder / "nano.toml").write_text("[kvcache]\nbeat = 32\n[attention]\ngroup = 4\n")
    paths = [word for name in "qkv" for word in (f"--{name}", str(folder / f"{name}.npy"))]
    simulate.main(["attention", "--config", str(folder / "nano.toml"), *paths, "--out", str(folder / out), *options])
    return np.load(folder / out)


def softmax(q, k, v, seen, sink=None):
    """Attention in float64, without care."""
    powers = np.exp(q @ k.T / 8) * seen
    return powers @ v / (powers.sum(-1) + (0 if sink is None else np.exp(sink)))[:, None]


def test_attention_on_rtl_and_golden(rows, capsys):
    folder, arrays = rows
    place, positions, sink = np.arange(20), np.array([3, 3, 3, 12, 12, 19]), np.linspace(-3, 2, 6)
    np.save(folder / "p.npy", positions)
    np.save(folder / "s.npy", sink)
    options = "--causal", str(folder / "p.npy"), "--window", "5", "--sinks", "2", "--sink", str(folder / "s.npy")
    found = attention(folder, *options, "--stall", "0.3", "--seed", "5")
    said = capsys.readouterr().out
    assert "RTL = golden bit for bit in all 384 results" in said and "2 passes of up to 4 queries" in said
    np.testing.assert_array_equal(attention(folder, *options, "--golden"), found)
    back = positions[:, None] - place
    exact = softmax(**arrays, seen=(back >= 0) & ((back < 5) | (place < 2)), sink=sink)
    assert found.dtype == np.float32 and np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("format, limit", [("bf16", 0.005), ("fp8", 0.06)])
def test_attention_comes_near(rows, format, limit, capsys):
    folder, arrays = rows
    found = attention(folder, "--golden", "--json", "--format", format)
    errors = json.loads(capsys.readouterr().out)["error"]
    exact = softmax(**arrays, seen=True)
    assert np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact ** 2)) == pytest.approx(errors["given"]["rms"])
    assert errors["stored"]["rms"] < errors["given"]["rms"] / 2 and errors["given"]["rms"] < limit
    causal = attention(folder, "--golden", "--format", format, "--causal", "--scale", "0.125")
    exact = softmax(**arrays, seen=np.arange(20) <= np.arange(14, 20)[:, None])
    assert np.sqrt(np.mean((causal - exact) ** 2) / np.mean(exact ** 2)) < limit


def test_parts_of_attention_are_joined_by_golden(rows):
    folder, arrays = rows
    whole, parts = attention(folder, "--golden"), []
    for half in (slice(0, 16), slice(16, 20)):
        for name in "kv":
            np.save(folder / f"{name}.npy", arrays[name][half])
        part = attention(folder, "--golden", "--part", out="part.npz")
        parts.append(Attended(encode(FP32, part["rows"]), encode(FP32, part["totals"]), part["exponents"]))
    np.testing.assert_allclose(join(parts), whole, atol=2e-3 * np.abs(whole).max())


def test_codes_of_keys_and_values(rows):
    folder, _ = rows
    for name in "kv":
        np.save(folder / f"{name}.npy", np.full((3, 64), 0x38, np.uint8))           # 1
        np.save(folder / f"{name}s.npy", np.array([128, 127, 126], np.uint8))       # times 2, 1, 1/2
    np.save(folder / "q.npy", np.zeros((1, 64)))
    scales = "--k-scales", str(folder / "ks.npy"), "--v-scales", str(folder / "vs.npy")
    assert attention(folder, "--golden", *scales) == pytest.approx(3.5 / 3, rel=1e-3)


@pytest.mark.parametrize("change, options, sentence", [
    ({"q": np.zeros(4)}, (), r"--q must be a matrix of real values, not float64 of shape \(4,\)"),
    ({"q": np.zeros((4, 64), int)}, (), r"--q must be a matrix of real values, not int64 of shape \(4, 64\)"),
    ({"v": np.zeros((19, 64))}, (), r"--v must be \(tokens, 64\), with the head_dim of --q and the tokens of --k, "
                                    r"not \(19, 64\)"),
    ({"k": np.zeros((20, 64), np.uint8)}, (), "--k-scales must be given, as --k holds codes in FP8"),
    ({"s": np.zeros(20)}, ("--k-scales", "s"), "--k-scales is of codes in FP8, which --k does not hold"),
    ({name: np.zeros((9, 20)) for name in "qkv"}, (), "there is no KV cache with head_dim = 20: must be a multiple of "
                                                      "8"),
    ({name: np.zeros((9, 264)) for name in "qkv"}, (), "there is no KV cache with head_dim = 264: .*256"),
    ({name: np.zeros((300, 64)) for name in "kv"}, (), "there must be a query, not 6, and 1 to 256 tokens, as table x "
                                                       "block_tokens in .*nano.toml says, not 300"),
    ({"s": np.zeros(5)}, ("--sink", "s"), r"--sink must hold 6 real values, not float64 of shape \(5,\)"),
    ({"s": np.arange(15, 21)}, ("--causal", "s"), "--causal must hold positions of tokens, 0 to 19, not 15 to 20"),
    ({"q": np.zeros((21, 64))}, ("--causal",), "--causal without positions: there are 21 queries and 20 tokens"),
    ({}, ("--window", "0"), "--window must be at least 1, not 0"),
    ({}, ("--sinks", "-1"), "--sinks must be at least 0, not -1"),
    ({}, ("--stall", "1"), "--stall must be at least 0 and below 1, not 1.0"),
])
def test_attention_that_cannot_be_is_refused(rows, change, options, sentence):
    folder, _ = rows
    for name, values in change.items():
        np.save(folder / f"{name}.npy", values)
    options = [str(folder / "s.npy") if word == "s" else word for word in options]
    with pytest.raises(SystemExit, match=f"^simulate: {sentence}$"):
        attention(folder, "--golden", *options)


def vector(folder, operation, *options):
    simulate.main(["vector", operation, "--config", NANO, "--x", str(folder / "a.npy"), "--out", str(folder / "r.npy"),
                   *options])
    return np.load(folder / "r.npy")


def test_norms_on_the_vector_engine(matrices, capsys):
    folder, a, _ = matrices
    np.save(folder / "y.npy", np.linspace(0.5, 2, 50))
    options = "--y", str(folder / "y.npy"), "--quantize", "row", "--output", "e4m3"
    found = vector(folder, "rms_norm", *options, "--stall", "0.3")
    assert "RTL = golden bit for bit in all of 450 elements" in capsys.readouterr().out
    np.testing.assert_array_equal(vector(folder, "rms_norm", *options, "--golden"), found)
    due = a / np.sqrt((a * a).mean(-1, keepdims=True)) * np.linspace(0.5, 2, 50)
    assert np.sqrt(((found - due) ** 2).mean() / (due**2).mean()) < 0.05


def test_operations_of_the_vector_engine(matrices):
    folder, a, _ = matrices
    np.testing.assert_allclose(vector(folder, "silu", "--golden"), a / (1 + np.exp(-a)), rtol=0.02, atol=1e-3)
    np.testing.assert_allclose(vector(folder, "softmax", "--golden").sum(-1), 1, rtol=0.01)
    best = vector(folder, "top_k", "--golden", "--k", "3")
    np.testing.assert_array_equal(best[:, 0, 1], a.argmax(-1))
    angles = np.random.default_rng(1).uniform(0, 9, (9, 25))
    np.save(folder / "y.npy", np.concatenate([np.cos(angles), np.sin(angles)], -1))
    found = vector(folder, "rope", "--golden", "--halves", "--y", str(folder / "y.npy"), "--y-format", "fp32")
    turned = (a[:, :25] + 1j * a[:, 25:]) * np.exp(1j * angles)
    np.testing.assert_allclose(found, np.concatenate([turned.real, turned.imag], -1), rtol=0.02, atol=0.02)
    mx = ["--y", str(folder / "s.npy"), "--y-format", "e8m0", "--x-format", "e4m3", "--golden"]
    written = vector(folder, "mul", "--golden", "--output", "e4m3", "--quantize", "mx", "--scales", mx[1])
    codes = vector(folder, "mul", "--golden", "--output", "e4m3", "--quantize", "mx", "--codes")
    np.save(folder / "codes.npy", codes)
    np.testing.assert_array_equal(vector(folder, "mul", "--x", str(folder / "codes.npy"), *mx), written)
    with pytest.raises(SystemExit, match="y of e8m0: must be with mul or top_k of e4m3, e5m2, e2m1, not silu of e4m3"):
        vector(folder, "silu", "--x", str(folder / "codes.npy"), *mx)
    np.save(folder / "y.npy", np.ones((2, 50)))
    with pytest.raises(SystemExit, match=r"--y must be \(9, 50\), \(1, 50\) or \(9, 1\), not \(2, 50\)"):
        vector(folder, "mul", "--y", str(folder / "y.npy"))


@pytest.mark.parametrize(("shape", "sentence"), [((2, 0), "rows of no elements"), ((0, 4), "x of no rows")])
def test_nothing_is_refused_by_name(matrices, shape, sentence):
    folder, _, _ = matrices
    np.save(folder / "none.npy", np.zeros(shape, np.float32))
    with pytest.raises(SystemExit, match=f"^simulate: {sentence}"):
        vector(folder, "mul", "--golden", "--x", str(folder / "none.npy"))
