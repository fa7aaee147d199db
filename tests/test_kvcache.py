# SPDX-License-Identifier: Apache-2.0
"""The KV-cache controller: traces of known outcome, and the reference against a second, naive one."""

import json
import os
import random
from pathlib import Path

import pytest
from naive_kvcache import Naive

from golden.config import KV_POLICIES, KvCache
from golden.kvcache import Controller
from golden.paging import ARGUMENTS, HEADER, PAYLOADS, SHORTFALL, Command, Opcode, State, Status, pack, unpack
from scripts import simulate
from scripts.benches.kvcache import commands
from sim.kvcache import Player, TraceError, play, read, replay
from sim.traffic import Coverage, draw
from sw.kvcache import chain

DEEP = "DEEP" in os.environ
SMALL = KvCache(blocks=18, table=6, block_tokens=4, tenant_bits=1)
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


def agree(controller, naive):
    """Both references hold the same."""
    for sid, sequence in enumerate(controller.sequences):
        seq = naive.world.seqs.get(sid)
        assert (seq is None) == (sequence.state == State.CLOSED)
        if seq:
            assert (seq.tenant, seq.gen, seq.n, seq.streams) == (
                sequence.tenant, sequence.gen, sequence.length, sequence.inflight)
            assert (seq.mode, naive.table(seq)) == (sequence.state.name, sequence.entries)
    held = naive.uses()
    for index, block in enumerate(controller.blocks):
        assert (block.ref, block.pinned) == (held[index], index in naive.world.pins)
        assert (block.tenant, block.hash) == naive.world.tags.get(index, (block.tenant, None))[:2]
    assert controller.free == naive.free_list()


@pytest.mark.parametrize("policy", KV_POLICIES)
@pytest.mark.parametrize("seed", range(10 if DEEP else 1))
def test_against_a_naive_reference(policy, seed):
    config = SMALL.model_copy(update={"policy": policy})
    rng, controller, naive = random.Random(f"{policy} {seed}"), Controller(config), Naive(config)
    for _ in range(10_000 if DEEP else 5_000):
        command = draw(rng, controller)
        if isinstance(command, int):
            controller.retire(command)
            naive.world.seqs[command].streams -= 1
            continue
        completion = controller.run(command)
        if command.opcode == Opcode.STAT:
            continue
        status, payload = naive.run(command)
        assert completion.status.name == status, command
        if command.opcode in PAYLOADS:
            fields = SHORTFALL if completion.status else PAYLOADS[command.opcode]
            assert {name: value for name, value in unpack(fields, completion.payload).items() if value} == {
                name: value for name, value in payload.items() if value}, command
        agree(controller, naive)


def test_random_commands(capsys):
    """Invariants hold, what is refused changes nothing, and all there is to cover is covered."""
    coverage, count = Coverage(), 600_000 if DEEP else 60_000
    for policy in KV_POLICIES:
        rng, controller = random.Random(policy), Controller(SMALL.model_copy(update={"policy": policy}))
        for n in range(count):
            command = draw(rng, controller)
            if isinstance(command, int):
                controller.retire(command)
                continue
            before, popped = controller.tables() if n % 5 == 0 else None, controller.counters["allocs"]
            completion = coverage.run(controller, command)
            popped = controller.counters["allocs"] - popped
            if completion.status:
                assert popped == 0 and before in (None, controller.tables()), command           # I7
            elif "blocks" in (fields := PAYLOADS[command.opcode]):
                assert popped == unpack(fields, completion.payload)["blocks"], command          # I10
            if n % 5 == 0:
                controller.check()
            controller.events.clear()
            controller.moves.clear()
        for sid, sequence in enumerate(controller.sequences):                                   # I5
            sequence.inflight = 0
            controller.run(Command(Opcode.FREE, {"sid": sid, "tenant": sequence.tenant}))
        for index, block in enumerate(controller.blocks):
            controller.run(Command(Opcode.UNPIN, {"block": index, "tenant": block.tenant}))
        assert len(controller.free) == len(controller.blocks) - 1
    with capsys.disabled():
        print("", *coverage.table(), sep="\n") if DEEP else None
    assert not coverage.missing()


def record(config, seed, count):
    """The `Player` of random commands, and what they covered."""
    rng, player, coverage = random.Random(seed), Player({}, config), Coverage()
    while len(player.log) < count:
        command = draw(rng, player.controller)
        if isinstance(command, int):
            player.controller.retire(command)
            player.log.append(command)
        else:
            player.run(command, coverage)
    player.dump()
    return player, coverage


@pytest.mark.parametrize("policy", KV_POLICIES)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_random_commands_on_rtl(policy, stall, capsys):
    """Completions, hits, ranges, transfers, events and tables are those of the reference, bit for bit."""
    count = 15_000 if DEEP else 1_500
    player, coverage = record(SMALL.model_copy(update={"policy": policy}), f"{policy} {stall}", count)
    assert len(replay(player.job(stall, seed=1))) >= count * 0.9
    if DEEP:
        with capsys.disabled():
            print("", *coverage.table(), sep="\n")
        assert not coverage.missing()


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_traces_on_rtl(path):
    player = play(read(path))
    if not DEEP and player.config.block_tokens == 2:
        pytest.skip("a model of its own")
    player.dump()
    replay(player.job())


@pytest.mark.parametrize("cycles", [1, 20, 100, *range(101, 400 if DEEP else 105)])
def test_reset_amid_commands(cycles):
    """Wherever a reset falls, everything begins anew."""
    player, _ = record(SMALL, "reset", 300)
    replay(player.job(interrupted=cycles, seed=cycles))


def test_cycles():
    """No command takes longer than it should, from where it is taken to its completion."""
    late = {case: each for case, each in commands().items() if each[1] and each[0] > each[1]}
    assert not late
