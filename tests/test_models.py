# SPDX-License-Identifier: Apache-2.0

import json
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from golden.llama import Llama, generate, perplexity
from sw import text
from sw.compiler import checkpoint

MODELS = sorted((Path(__file__).parents[1] / "configs" / "models").iterdir())


@pytest.fixture(params=MODELS, ids=lambda folder: folder.name)
def folder(request):
    return request.param


def test_weights_are_those_of_the_training(folder):
    training, file = json.loads((folder / "training.json").read_text()), folder / "model.safetensors"
    model = checkpoint.read(folder).model
    assert sha256(file.read_bytes()).hexdigest() == training["sha256"] and file.stat().st_size < 2_500_000
    assert (training["model"], training["parameters"]) == (folder.name, model.parameters)
    assert model.vocabulary == text.VOCABULARY


def test_they_know_python(folder):
    """Some text held out is no surprise, whatever Python's version; and a function begins as such."""
    found = checkpoint.read(folder)
    llama = Llama(found.model, found.values(np.float32), np.float32)
    known = json.loads((folder / "training.json").read_text())["perplexity_held_out"]
    assert 0.8 * known < perplexity(llama, text.held_out(256)[::40]) < 1.3 * known
    completion = text.decode(islice(generate(llama, text.encode("class Tree:\n    def ")), 40))
    assert "(self" in completion.splitlines()[0]
