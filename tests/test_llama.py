# SPDX-License-Identifier: Apache-2.0

from itertools import islice

import numpy as np
import pytest

from golden.llama import Cache, Llama, generate, perplexity, silu
from golden.model import Rope
from tests import naive_llama
from tests.checkpoints import CASES, LONG, MODELS, weights

TOKENS = np.random.default_rng(1).integers(0, 37, 23)


@pytest.fixture(params=CASES, ids=" ".join)
def model(request):
    family, name = request.param
    return MODELS[family][name]


def test_logits_are_those_of_the_naive_model(model):
    found = Llama(model, weights(model))(TOKENS)
    wanted = naive_llama.logits(model, weights(model), TOKENS)
    assert found.shape == (len(TOKENS), model.vocabulary)
    assert wanted.std() > 0.1 and np.abs(found - wanted).max() < 1e-12 * np.abs(wanted).max()


def test_steps_are_the_whole(model):
    """In pieces of any size; what is cached is not touched again."""
    llama, cache = Llama(model, weights(model)), Cache(model)
    pieces = np.split(TOKENS, [1, 2, 9, 10])
    found = np.concatenate([llama(piece, cache) for piece in pieces])
    assert len(cache) == len(TOKENS)
    np.testing.assert_allclose(found, llama(TOKENS), rtol=0, atol=1e-11)


def test_float32_is_close(model):
    found = Llama(model, weights(model), np.float32)(TOKENS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, Llama(model, weights(model))(TOKENS), rtol=0, atol=2e-4)


def test_greedy(model):
    llama, prompt = Llama(model, weights(model)), TOKENS[:3].tolist()
    for token in islice(generate(llama, prompt), 8):
        assert token == llama(np.array(prompt))[-1].argmax()
        prompt.append(token)


def test_frequencies_of_llama_3():
    """Those of the naive model, by all three of its cases, and those left alone at both ends."""
    found, plain = LONG.frequencies(64), Rope(theta=500.0).frequencies(64)
    np.testing.assert_allclose(found, [naive_llama.frequency(LONG, i / 32) for i in range(32)], rtol=1e-15)
    ratios = plain / found
    assert ratios[0] == 1 and ratios[-1] == LONG.factor and (np.diff(ratios) >= 0).all()
    assert len(np.unique(ratios.round(9))) > 4
    assert plain[0] == 1 and plain[16] == pytest.approx(500 ** -0.5)


def test_perplexity():
    """Of a model that knows nothing, how many tokens there are; of one that knows the first of two, one and both."""
    sequences = np.random.default_rng(2).integers(0, 37, (3, 9))
    assert perplexity(lambda tokens: np.full((len(tokens), 37), 5.0), sequences) == pytest.approx(37)
    tokens = [np.array([0, 1, 1]), np.array([0, 1])]
    sure = np.array([[-1e3, 1e3], [7.0, 7.0]])
    assert perplexity(lambda seen: sure[:len(seen)], tokens) == pytest.approx(2 ** (1 / 3))


def test_silu_of_large_numbers():
    with np.errstate(all="raise", under="ignore"):
        for dtype in np.float32, np.float64:
            found = silu(np.array([-1e4, -90, 0, 90, 1e4], dtype))
            np.testing.assert_allclose(found, [0, 0, 0, 90, 1e4], atol=1e-30)
