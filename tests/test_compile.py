# SPDX-License-Identifier: Apache-2.0
"""A compiled model as files, and what the compiler says of its cycles and energy."""

import json
import os
import re

import numpy as np
import pytest

from golden.config import load
from golden.tile import Tile
from scripts import compile
from scripts.energy import EVENTS, joules
from sim.run import ROOT
from sim.tile import Rtl
from sim.timeline import perfetto, programs
from sw import text
from sw.compiler.checkpoint import read
from sw.compiler.layout import Layout, fit
from sw.runtime.device import Golden
from sw.runtime.runtime import Runtime

DEEP = "DEEP" in os.environ
TINY, NANO = ROOT / "configs" / "models" / "tiny-100k", ROOT / "configs" / "nano.toml"


def layout():
    checkpoint = read(TINY)
    return Layout(checkpoint, fit(load(NANO), checkpoint.model))


def test_files_are_enough(tmp_path, capsys):
    """A host that has nothing but the files gets the tokens that the runtime gets."""
    compile.main(["--checkpoint", str(TINY), "--config", str(NANO), "--out", str(tmp_path)])
    assert "decode.bin: " in capsys.readouterr().out
    found = json.loads((tmp_path / "manifest.json").read_text())
    at, programs = found["memory"]["at"], found["programs"]
    image = np.fromfile(tmp_path / "memory.bin", np.uint8)
    tile = Tile(load(NANO), found["memory"]["bytes"], found["registers"]["kv_base"] << 12)
    tile.memory[:len(image)] = image

    def run(name, tokens=()):
        for n, token in enumerate(tokens):
            place = at["tokens"] + n * found["tokens"]["pitch"] + found["tokens"]["offset"]
            tile.memory[place:place + 4] = np.array([token], "<u4").view(np.uint8)
        tile.run((tmp_path / programs[name]["file"]).read_bytes())

    def results(count):
        places = [at["results"] + n * found["results"]["pitch"] + found["results"]["offset"] for n in range(count)]
        return [int(tile.memory[place:place + 4].view("<u4")[0]) for place in places]

    prompt = text.encode("class Reader")[:programs["prefill"]["tokens"]]
    run("open")
    run("prefill", prompt)
    first = results(1)
    run("decode", first)
    wanted = [token for _, token, _ in Runtime(layout(), Golden(layout())).generate([prompt], 9)]
    assert first + results(programs["decode"]["steps"]) == wanted


@pytest.mark.parametrize(("options", "sentence"), [
    (["--batch", "5"], "compile: sequences 0 to 4: there are 4"),
    (["--checkpoint", "nowhere"], "compile: nowhere/config.json: No such file or directory"),
])
def test_what_cannot_be_compiled(tmp_path, options, sentence):
    with pytest.raises(SystemExit, match=f"^{re.escape(sentence)}$"):
        compile.main(["--checkpoint", str(TINY), "--config", str(NANO), "--out", str(tmp_path), *options])


def test_cycles_are_what_was_predicted(tmp_path):
    """To 2 %, on the RTL, prompts and tokens, one sequence and several; and the trace knows every instruction."""
    device = Rtl(layout())
    device.trace(tmp_path / "events")
    own = Runtime(layout(), device)
    for prompts in ["def read("], ["class ", "import numpy", "x"]:
        list(own.generate([text.encode(prompt) for prompt in prompts], 5 if DEEP else 2))
    device.trace()
    for kind in "prefill", "decode":
        cycles, predicted = (sum(getattr(run, what) for run in own.runs if run.kind == kind)
                             for what in ("cycles", "predicted"))
        assert abs(predicted / cycles - 1) < 0.02, (kind, cycles, predicted)
    ran = programs(tmp_path / "events", device.programs)
    found = [program for program in ran if program.macs]
    assert len(found) == len(own.runs)
    for run, program in zip(own.runs, found, strict=True):
        assert program.cycles <= run.cycles <= program.cycles + 20 and program.beats
        assert all(program.begin <= span.begin <= span.end <= program.end for span in program.spans)
    perfetto(tmp_path / "trace.json", tmp_path / "events", ran)
    trace = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(each["ph"] == "X" and each["tid"] > 0 for each in trace) == sum(len(each.spans) for each in ran)
    device.close()


def test_energy_is_counted_by_engine():
    found = joules({"macs_e4m3": 4, "memory_bytes": 2, "nothing of cost": 7})
    assert found == {"matmul": 4 * EVENTS["macs_e4m3"].pj, "memory": 2 * 8 * 3.9}
