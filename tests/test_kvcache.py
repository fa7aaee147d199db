# SPDX-License-Identifier: Apache-2.0
"""The KV-cache controller: traces of known outcome, and the reference against a second, naive one."""

import json
import os
import random
from pathlib import Path

import pytest
from amaranth.hdl import Signal
from naive_kvcache import Naive

from golden.config import KV_POLICIES, KvCache
from golden.kvcache import Controller
from golden.paging import (
    ARGUMENTS,
    COUNTERS,
    HEADER,
    PAYLOADS,
    SHORTFALL,
    Command,
    Opcode,
    State,
    Status,
    Table,
    pack,
    unpack,
)
from hw.kvcache.controller import Controller as Rtl
from scripts import simulate
from scripts.benches.kvcache import commands
from sim.formal.kvcache import SIMPLE, SMALLEST, EachCommand
from sim.formal.kvcache import commands as prepared
from sim.formal.prove import Task, prove
from sim.kvcache import PATIENCE, Player, TraceError, play, read, replay
from sim.run import simulate as simulation
from sim.traffic import Coverage, corners, draw, reorder
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


def record(config, seed, count, retires=True):
    """The `Player` of random commands, and what they covered."""
    rng, player, coverage = random.Random(seed), Player({}, config), Coverage()
    while len(player.log) < count:
        command = draw(rng, player.controller)
        if not isinstance(command, int):
            player.run(command, coverage)
        elif retires:
            player.controller.retire(command)
            player.log.append(command)
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


@pytest.mark.parametrize("sizes", [
    {"blocks": 5, "sequences": 2, "table": 3, "block_tokens": 1, "tenant_bits": 2, "hash_bits": 8, "kv_heads": 1,
     "counter_bits": 8},
    {"blocks": 9, "sequences": 1, "table": 1, "block_tokens": 8, "tenant_bits": 1, "kv_heads": 3, "format": "bf16",
     "counter_bits": 20}])
def test_odd_sizes_on_rtl(sizes):
    player, _ = record(KvCache(**sizes), "odd", 2_000 if DEEP else 500)
    replay(player.job(0.2))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_traces_on_rtl(path):
    player = play(read(path))
    player.dump()
    replay(player.job())


@pytest.mark.parametrize("policy", KV_POLICIES)
@pytest.mark.parametrize("each", [reorder, corners])
def test_what_random_commands_seldom_do(each, policy):
    player = Player({}, SMALL.model_copy(update={"policy": policy}))
    each(player)
    replay(player.job())


def test_reset_amid_commands():
    """Wherever a reset falls, everything begins anew."""
    player, _ = record(SMALL, "reset", 300, retires=False)
    replay(player.job(interrupted=tuple(range(1, 800) if DEEP else range(1, 400, 9))))


def world():
    """Sequences of two tenants in all states: shared, cached, pinned, windowed, streaming, swapped; a pool that is
    used up but for two blocks.
    """
    player = Player({}, SMALL)

    def run(opcode, operands=(), **arguments):
        assert not player.run(Command(opcode, arguments, tuple(operands)))[0].status

    for sid, tenant, tokens in ((0, 0, 10), (2, 1, 13), (3, 0, 9), (4, 0, 4), (5, 0, 6)):
        run(Opcode.ALLOC_SEQ, sid=sid, tenant=tenant)
        run(Opcode.APPEND, sid=sid, tenant=tenant, tokens=tokens)
    for sid, tenant, hash in ((0, 0, 16), (2, 1, 32), (4, 0, 48)):
        run(Opcode.COMMIT, sid=sid, tenant=tenant, hash=hash)
    run(Opcode.FORK, sid=0, target=1)
    run(Opcode.WINDOW, sid=3, computed=9, window=2)
    run(Opcode.STREAM, sid=4, heads=1)
    run(Opcode.SWAP_OUT, sid=5, slot=0)
    run(Opcode.PIN, by_hash=1, hash=16)
    run(Opcode.PIN, by_hash=1, hash=32, tenant=1)
    run(Opcode.ALLOC_SEQ, sid=6, tenant=1)
    run(Opcode.APPEND, sid=6, tenant=1, tokens=4)
    run(Opcode.COMMIT, sid=6, tenant=1, hash=33)
    run(Opcode.PREEMPT, sid=6, tenant=1)                            # its block is free and cached
    run(Opcode.ALLOC_SEQ, sid=7)
    run(Opcode.APPEND, sid=7, tokens=4 * (len(player.controller.free) - 2))
    return player


def tables_read(player):
    """All tables, read by commands; what these answer."""
    begin = len(player.log)
    player.dump()
    return [(command, completion.word, hits) for command, completion, hits, _ in player.log[begin:]
            if command.arguments.get("table") != Table.COUNTER]


SEQUENCE_COMMANDS = [
    (Opcode.ATTACH, {}), (Opcode.ATTACH, {"tokens": 1}), (Opcode.APPEND, {"tokens": 1}), (Opcode.COMMIT, {"hash": 5}),
    (Opcode.FORK, {"target": 7}), (Opcode.STREAM, {"heads": 1}), (Opcode.WRITE, {"count": 1}),
    (Opcode.TRUNCATE, {"length": 1}), (Opcode.WINDOW, {"computed": 1, "window": 1}), (Opcode.FREE, {}),
    (Opcode.PREEMPT, {}), (Opcode.SWAP_OUT, {}), (Opcode.SWAP_IN, {})]

REFUSED = [
    *((Status.BAD_SEQ, opcode, {"sid": sid, **given}) for sid in (8, 1 << 15) for opcode, given in SEQUENCE_COMMANDS),
    (Status.BAD_SEQ, Opcode.ALLOC_SEQ, {"sid": 8}), (Status.BAD_SEQ, Opcode.FORK, {"sid": 0, "target": 8}),
    (Status.BAD_SEQ, Opcode.SWAP_IN, {"sid": 0}), (Status.BAD_SEQ, Opcode.STAT, {"table": 1, "index": 8}),
    (Status.SEQ_IN_USE, Opcode.ALLOC_SEQ, {"sid": 0}), (Status.SEQ_IN_USE, Opcode.FORK, {"sid": 0, "target": 7}),
    (Status.OUT_OF_BLOCKS, Opcode.APPEND, {"sid": 3, "tokens": 15}),
    (Status.OUT_OF_BLOCKS, Opcode.APPEND, {"sid": 0, "tokens": 12}),            # as a copy needs one
    (Status.OUT_OF_BLOCKS, Opcode.ATTACH, {"sid": 6, "tenant": 1, "tokens": 9}),
    (Status.OUT_OF_BLOCKS, Opcode.ATTACH, {"sid": 6, "tenant": 1, "tokens": 8, "by_hash": 1}, 33),
    (Status.OUT_OF_SEQ_TABLE, Opcode.APPEND, {"sid": 0, "tokens": 15}),
    (Status.OUT_OF_SEQ_TABLE, Opcode.APPEND, {"sid": 0, "tokens": (1 << 20) - 1}),
    (Status.OUT_OF_SEQ_TABLE, Opcode.ATTACH, {"sid": 4, "tokens": 21}),
    (Status.OUT_OF_SEQ_TABLE, Opcode.ATTACH, {"sid": 4, "by_hash": 1}, *[48] * 6),
    (Status.OUT_OF_RANGE, Opcode.ATTACH, {"sid": 0, "by_hash": 1}, 48),         # its last block is not full
    (Status.OUT_OF_RANGE, Opcode.ATTACH, {"sid": 4}, 1, 18), (Status.OUT_OF_RANGE, Opcode.ATTACH, {"sid": 4}, 1 << 16),
    (Status.OUT_OF_RANGE, Opcode.COMMIT, {"sid": 0, "index": 2}),
    (Status.OUT_OF_RANGE, Opcode.COMMIT, {"sid": 0, "index": 3}),
    (Status.OUT_OF_RANGE, Opcode.COMMIT, {"sid": 0, "index": (1 << 16) - 1}),
    (Status.OUT_OF_RANGE, Opcode.STREAM, {"sid": 0, "heads": 0}),
    (Status.OUT_OF_RANGE, Opcode.STREAM, {"sid": 0, "heads": 4}),
    (Status.OUT_OF_RANGE, Opcode.STREAM, {"sid": 0, "heads": 1, "layer": 2}),
    (Status.OUT_OF_RANGE, Opcode.STREAM, {"sid": 0, "heads": 1, "first": 10}),
    (Status.OUT_OF_RANGE, Opcode.STREAM, {"sid": 0, "heads": 1, "first": 9, "count": 2}),
    (Status.OUT_OF_RANGE, Opcode.WRITE, {"sid": 0, "first": 10, "count": 1}),
    (Status.OUT_OF_RANGE, Opcode.WRITE, {"sid": 0, "first": 9}),
    (Status.OUT_OF_RANGE, Opcode.TRUNCATE, {"sid": 0, "length": 11}),
    (Status.OUT_OF_RANGE, Opcode.WINDOW, {"sid": 0, "computed": 11, "window": 1}),
    *((Status.OUT_OF_RANGE, opcode, {"block": 18}) for opcode in (Opcode.PIN, Opcode.UNPIN, Opcode.EVICT)),
    *((Status.OUT_OF_RANGE, Opcode.STAT, {"table": table, "index": index}) for table, index in (
        (0, len(COUNTERS)), (3, 18), (4, 18), (5, 0))),
    (Status.OUT_OF_RANGE, Opcode.STAT, {"table": 2, "index": 0, "entry": 3}),
    (Status.DOUBLE_FREE, Opcode.UNPIN, {"by_hash": 1, "hash": 48}), (Status.DOUBLE_FREE, Opcode.UNPIN, {"block": 2}),
    *((Status.NULL_DEREF, opcode, {"block": 0}) for opcode in (Opcode.PIN, Opcode.UNPIN, Opcode.EVICT)),
    (Status.NULL_DEREF, Opcode.COMMIT, {"sid": 3}), (Status.NULL_DEREF, Opcode.STREAM, {"sid": 3, "heads": 3}),
    (Status.NULL_DEREF, Opcode.WRITE, {"sid": 3, "count": 1}), (Status.NULL_DEREF, Opcode.STAT, {"table": 3}),
    *((Status.XSEQ, opcode, {"sid": 0, "tenant": 1, **given}) for opcode, given in SEQUENCE_COMMANDS),
    *((Status.STALE_GEN, opcode, {"sid": 0, "gen": 2, **given}) for opcode, given in SEQUENCE_COMMANDS),
    (Status.STALE_GEN, Opcode.PIN, {"block": 2}), (Status.STALE_GEN, Opcode.EVICT, {"block": 2}),
    (Status.STALE_GEN, Opcode.PIN, {"by_hash": 1, "hash": 17}),
    (Status.STALE_GEN, Opcode.EVICT, {"by_hash": 1, "hash": 16 + (1 << 63)}),
    (Status.STALE_GEN, Opcode.ATTACH, {"sid": 4, "by_hash": 1}, 48, 17),
    (Status.STALE_GEN, Opcode.ATTACH, {"sid": 4}, 2),
    (Status.REF_OVERFLOW, Opcode.PIN, {"by_hash": 1, "hash": 16}),
    (Status.WRITE_SHARED, Opcode.COMMIT, {"sid": 0, "hash": 17}),
    (Status.WRITE_SHARED, Opcode.WRITE, {"sid": 0, "count": 1}),                # cached
    (Status.WRITE_SHARED, Opcode.WRITE, {"sid": 0, "first": 9, "count": 1}),    # of two sequences
    *((Status.BUSY, opcode, {"sid": 4, "length": 1, "window": 1, "computed": 1}) for opcode in (
        Opcode.TRUNCATE, Opcode.WINDOW, Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_OUT)),
    *((Status.BUSY, opcode, {"sid": 5, **given}) for opcode, given in SEQUENCE_COMMANDS
      if opcode not in (Opcode.FREE, Opcode.PREEMPT, Opcode.SWAP_IN)),
    (Status.BUSY, Opcode.RESET_PREFIX, {}),
    *((Status.BAD_CFG, opcode, {}) for opcode in (0, 20, 255)),
    *((Status.BAD_CFG, opcode, {"tenant": 2}) for opcode in Opcode),
    (Status.BAD_CFG, Opcode.WINDOW, {"sid": 0, "computed": 9}),
    (Status.BAD_CFG, Opcode.STREAM, {"sid": 0, "heads": 1, "window": 1}),
]


def test_refused_commands_change_nothing():
    """Every error, on the RTL: the tables read before and after are equal."""
    player = world()
    before = tables_read(player)
    for status, opcode, given, *operands in REFUSED:
        given = {name: value for name, value in given.items() if name in {**HEADER, **ARGUMENTS.get(opcode, {})}}
        if operands:
            given["count"] = len(operands)
        assert player.run(Command(opcode, given, tuple(operands)))[0].status == status, (status, opcode, given)
        if DEEP:
            assert tables_read(player) == before
    assert tables_read(player) == before
    assert {status for status, *_ in REFUSED} == Coverage.STATUSES - {Status.OK}
    replay(player.job())


def test_more_references_than_a_block_counts():
    """`FORK` and `ATTACH` give back what they took before they met the block that has too many."""
    player = world()
    for sid in 5, 7:
        player.run(Command(Opcode.FREE, {"sid": sid}))
    for sid in 5, 7:
        player.run(Command(Opcode.ALLOC_SEQ, {"sid": sid}))
    held = player.controller.cached[0, 48][0]
    idle = player.controller.cached[1, 33][0]
    player.run(Command(Opcode.ATTACH, {"sid": 7, "count": 6}, (held,) * 6))
    player.run(Command(Opcode.ATTACH, {"sid": 5, "count": 6}, (held,) * 6))
    before = tables_read(player)
    for opcode, given, operands in (
            (Opcode.ATTACH, {"sid": 4, "count": 3}, (held,) * 3),
            (Opcode.ATTACH, {"sid": 4, "count": 5}, (0, held, 0, held, held))):
        assert player.run(Command(opcode, given, operands))[0].status == Status.REF_OVERFLOW
        assert tables_read(player) == before
    assert player.run(Command(Opcode.ATTACH, {"sid": 6, "tenant": 1, "count": 3}, (idle, idle, held)))[0].status == (
        Status.XSEQ)
    player.run(Command(Opcode.FREE, {"sid": 1}))
    before = tables_read(player)
    assert player.run(Command(Opcode.FORK, {"sid": 7, "target": 1}))[0].status == Status.REF_OVERFLOW
    assert tables_read(player) == before
    replay(player.job())


def trespasses(controller, tenant):
    """All that a tenant might try on what is another's, and how each try must end."""
    own = next(sid for sid, each in enumerate(controller.sequences)
               if each.state in (State.RUNNING, State.PREEMPTED) and each.tenant == tenant and not each.length % 4)
    named = (Opcode.PIN, Opcode.UNPIN, Opcode.EVICT)
    for sid, each in enumerate(controller.sequences):
        if each.state != State.CLOSED and each.tenant != tenant:
            for opcode, given in SEQUENCE_COMMANDS:
                for gen in 0, each.gen:
                    yield Status.XSEQ, opcode, {"sid": sid, "gen": gen, **given}, ()
            yield Status.SEQ_IN_USE, Opcode.ALLOC_SEQ, {"sid": sid}, ()
            yield Status.SEQ_IN_USE, Opcode.FORK, {"sid": own, "target": sid}, ()
            yield Status.XSEQ, Opcode.STAT, {"table": Table.SEQUENCE, "index": sid}, ()
            yield Status.XSEQ, Opcode.STAT, {"table": Table.ENTRY, "index": sid}, ()
    mine = [copies[0] for (owner, _), copies in controller.cached.items() if owner == tenant]
    for block, each in enumerate(controller.blocks):
        if (each.ref or each.hash is not None) and each.tenant != tenant:
            for opcode in named:
                yield Status.XSEQ, opcode, {"block": block}, ()
            for ahead in [], mine[:1]:
                yield Status.XSEQ, Opcode.ATTACH, {"sid": own}, (*ahead, block)
            for table, high in (Table.BLOCK, 0), (Table.HASH, 0), (Table.HASH, 1):
                yield Status.XSEQ, Opcode.STAT, {"table": table, "index": block, "high": high}, ()
            if each.hash is not None:
                for opcode in named:
                    yield Status.STALE_GEN, opcode, {"by_hash": 1, "hash": each.hash}, ()
                yield Status.STALE_GEN, Opcode.ATTACH, {"sid": own, "by_hash": 1}, (each.hash,)
                yield Status.OK, Opcode.LOOKUP, {}, (each.hash,)
    yield Status.BUSY, Opcode.RESET_PREFIX, {}, ()


def test_tenants_are_isolated():
    """Whatever a tenant tries on what is another's is refused with its code and changes nothing, on the RTL."""
    player = world()
    before = tables_read(player)
    for tenant in 0, 1:
        for status, opcode, given, operands in list(trespasses(player.controller, tenant)):
            given = given | {"tenant": tenant} | ({"count": len(operands)} if operands else {})
            completion, hits = player.run(Command(opcode, given, operands))
            assert (completion.status, hits) == (status, []), (opcode, given)
            if DEEP:
                assert tables_read(player) == before
    assert tables_read(player) == before
    replay(player.job())


def test_operands_that_do_not_come():
    """A command that waits for them is given up; what it did is undone, and others go on."""
    config = Player({}, SMALL).job().built
    assert simulation(Rtl(config, PATIENCE), "sim.benches.kvcache_operands", x_initial="unique") == 1


def test_cycles():
    """No command takes longer than it should, from where it is taken to its completion."""
    late = {case: each for case, each in commands().items() if each[1] and each[0] > each[1]}
    assert not late


class Leaky(EachCommand):
    """A controller that forgets to count a block that leaves the free list."""

    def _unlink(self, m, block, prior, later):
        count, self.count = self.count, Signal.like(self.count)
        super()._unlink(m, block, prior, later)
        self.count = count


def test_invariants_notice_a_leak(tmp_path):
    task = Task(Leaky(SMALLEST, Opcode.PIN), prepared(Opcode.PIN), depth=8, cover=0, cut=SIMPLE)
    verdicts = {result.property.partition(":")[2].strip() for result in prove(task, folder=tmp_path)
                if result.verdict == "failed"}
    assert "I2, I3: the free list has each block without references once" in verdicts
