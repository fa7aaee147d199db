# SPDX-License-Identifier: Apache-2.0
"""The KV-cache controller: traces of known outcome, and the reference against a second, naive one."""

import json
from pathlib import Path

import pytest

from golden.config import KvCache
from golden.kvcache import Controller
from golden.paging import ARGUMENTS, HEADER, PAYLOADS, Command, Opcode, Status, pack, unpack
from scripts import simulate
from sim.kvcache import TraceError, play, read
from sw.kvcache import chain

TRACES = sorted((Path(__file__).parents[1] / "sim" / "traces" / "kvcache").glob("*.json"))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_traces(path):
    assert play(read(path)).expectations >= 8


def test_traces_raise_every_error_that_commands_can():
    statuses = {completion.status for path in TRACES for _, completion, *_ in
                (entry for entry in play(read(path)).log if isinstance(entry, tuple))}
    assert statuses == set(Status) - {Status.ECC_CE, Status.ECC_UE, Status.BUS_ERR}


def test_a_trace_that_differs_names_the_step():
    trace = read(TRACES[0])
    trace["steps"] = [{"op": "alloc_seq", "seq": 0}, {"op": "append", "seq": 0, "tokens": 20, "expect": {
        "blocks": 3, "table": {"0": [1]}, "free": [3], "refs": {"1": 1, "2": 2}}}]
    trace["config"] = {"blocks": 4}
    with pytest.raises(TraceError, match=(
            r"^step 1 \(append\): blocks: expected 3, found 2\n"
            r"step 1 \(append\): table: expected {\"0\": \[1\]}, found {\"0\": \[1, 2\]}\n"
            r"step 1 \(append\): refs: expected {\"1\": 1, \"2\": 2}, found {\"1\": 1, \"2\": 1}$")):
        play(trace)


@pytest.mark.parametrize("step, sentence", [
    ({"op": "grow", "seq": 0}, r"no such operation; there are prefill, retire, alloc_seq, .*, stat"),
    ({"op": "append", "seq": "A", "tokens": 1}, r"no sequence is called 'A'"),
    ({"op": "append", "tokens": [1]}, r"no 'seq'"),
    ({"op": "free", "seq": 0, "length": 1}, r"no such argument: length"),
    ({"op": "alloc_seq", "seq": 0, "expect": {"beats": 3}}, r"nothing to expect is called 'beats' here"),
    ({"op": "alloc_seq", "seq": 0, "gen": 256}, r"gen must be 0 to 255, not 256"),
])
def test_what_is_no_step_is_refused(step, sentence):
    with pytest.raises(ValueError, match=rf"^step 0 \({step['op']}\): {sentence}$"):
        play({"steps": [step]})


def test_command_line(tmp_path, capsys):
    simulate.main(["kvcache", "--golden", "--json", "--trace", *map(str, TRACES)])
    found = json.loads(capsys.readouterr().out)
    assert len(found) == len(TRACES) and all(each["expectations"] for each in found)
    (tmp_path / "t.json").write_text('{"steps": [{"op": "free", "seq": 0}]}')
    with pytest.raises(SystemExit, match=r't.json: step 0 \(free\): status: expected "OK", found "BAD_SEQ"'):
        simulate.main(["kvcache", "--golden", "--trace", str(tmp_path / "t.json")])
    (tmp_path / "t.json").write_text("[]")
    with pytest.raises(SystemExit, match=r"t.json: a trace is an object with a list of steps"):
        simulate.main(["kvcache", "--golden", "--trace", str(tmp_path / "t.json")])


@pytest.mark.parametrize("opcode", Opcode)
def test_words(opcode):
    """A command is a header and arguments in 128 bits, a payload fits 48."""
    fields = HEADER | ARGUMENTS[opcode]
    assert sum(fields.values()) <= 128 and sum(PAYLOADS[opcode].values()) <= 48
    given = {name: (1 << bits) - 1 for name, bits in ARGUMENTS[opcode].items()} | {"tag": 5, "tenant": 7, "gen": 9}
    assert unpack(fields, Command(opcode, given).word) == given | {"opcode": opcode}


def test_values_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"^tokens must be 0 to 1048575, not 1048576$"):
        pack(ARGUMENTS[Opcode.APPEND], {"tokens": 1 << 20})
    with pytest.raises(ValueError, match=r"^no such field: length; there are sid$"):
        pack(ARGUMENTS[Opcode.FREE], {"length": 1})


def test_hashes_are_chained_and_salted():
    one, other = chain(range(48), 16), chain([*range(32), 99, *range(33, 48)], 16)
    assert one[:2] == other[:2] and one[2] != other[2] and len(chain(range(47), 16)) == 2
    assert not set(one) & set(chain(range(48), 16, "salt"))
    assert chain([1, 11] + [0] * 14, 16) != chain([11, 1] + [0] * 14, 16)


def test_unknown_opcodes_are_refused():
    controller = Controller(KvCache())
    assert controller.run(Command(99, {"tag": 3})).word == 3 | Status.BAD_CFG << 8
    assert controller.error["opcode"] == 99
