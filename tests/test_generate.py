# SPDX-License-Identifier: Apache-2.0

import json
import subprocess
import sys

import pytest

from scripts import generate
from sim.run import ROOT

NANO = str(ROOT / "configs" / "nano.toml")


def test_engine_of_a_configuration(tmp_path, capsys):
    generate.main(["--config", NANO, "--out", str(tmp_path), "--name", "nano", "--json"])
    made = json.loads(capsys.readouterr().out)
    assert made["top"] == made["modules"][-1]
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"{module}.sv" for module in made["modules"]), "ports.json", "nano.f", "nano.core"}


def test_any_block_in_one_file(tmp_path, capsys):
    generate.main(["--block", "hw.stream:Queue", "--with", "shape=8", "depth=4", "--one-file",
                   "--out", str(tmp_path)])
    output = capsys.readouterr()
    assert output.out.startswith("queue_8x4: 1 modules in ")
    assert "queue_8x4" in output.err                 # progress
    assert (tmp_path / "queue_8x4.sv").exists()


@pytest.mark.parametrize("words, sentence", [
    ([], "generate: --block engine needs --config FILE"),
    (["--block", "queue"],
     "generate: --block must be engine, array, pe, vector, kvcache, heads, network, mesh, router, interface or "
     "module:Class, not 'queue'"),
    (["--block", "hw.stream:Queue", "--with", "shape"], "generate: --with must be NAME=VALUE, not 'shape'"),
    (["--block", "hw.stream:Queue", "--with", "shape=8", "depth=99"],
     "generate: Queue: depth must be 1 to 64, not 99"),
    (["--block", "hw.stream:Queue", "--with", "shape=8"],
     "generate: --block hw.stream:Queue: missing a required argument: 'depth'"),
    (["--block", "hw.stream:Lost"], "generate: hw.stream:Lost: module 'hw.stream' has no attribute 'Lost'"),
    (["--block", "hw.emit:Library"], "generate: --block hw.emit:Library: not a Block"),
])
def test_errors_are_one_clear_line(tmp_path, words, sentence):
    with pytest.raises(SystemExit) as ended:
        generate.main([*words, "--out", str(tmp_path)])
    assert str(ended.value) == sentence


def test_bad_configuration_is_shown(tmp_path):
    (tmp_path / "bad.toml").write_text("[matmul]\nlanes = 0")
    with pytest.raises(SystemExit, match=r"bad.toml: matmul.lanes = 0: must be an integer, 1 to 64$"):
        generate.main(["--config", str(tmp_path / "bad.toml"), "--out", str(tmp_path)])


def test_help_runs_as_a_program():
    done = subprocess.run([sys.executable, "scripts/generate.py", "--help"], cwd=ROOT, text=True,
                          capture_output=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and "--one-file" in done.stdout
