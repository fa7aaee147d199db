# SPDX-License-Identifier: Apache-2.0
"""Traces of KV-cache operations in JSON, played on the reference and on the RTL; docs/kvcache.md describes them.

Every command of a trace is checked: the invariants hold after it, and one that is refused has changed
nothing. The RTL is given the commands that the reference was given, and must answer with the same bits.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from golden.config import KV_POLICIES, KvCache
from golden.kvcache import Controller
from golden.paging import (
    ARGUMENTS,
    COUNTERS,
    PAYLOADS,
    SHORTFALL,
    Command,
    Opcode,
    State,
    Status,
    Table,
    unpack,
)
from sim.job import submit
from sw.kvcache import Host, chain

__all__ = ["Job", "Player", "Step", "TraceError", "play", "read", "replay", "unpacked"]

PATIENCE = 500      # cycles that the RTL waits for an operand
PEOPLE = {"op", "seq", "target", "expect", "about", "tenant", "gen", "salt", "hold"}
"""Keys of a step that are not arguments of its command as they are."""


class TraceError(AssertionError):
    """A trace that does not hold; one line a difference."""


@dataclass
class Step:
    """What one step of a trace did.

    Attributes
    ----------
    status : Status
        Of the first command refused.
    payload : dict of str to int
        Of that, or of the command that the step is named after.
    new : list of int
        Blocks that were free before and are in the sequence's table now, except for hits.
    """

    status: Status
    payload: dict
    hits: list = field(default_factory=list)
    new: list = field(default_factory=list)
    ranges: list = field(default_factory=list)
    events: list = field(default_factory=list)
    moves: list = field(default_factory=list)


@dataclass
class Job:
    """What the reference did, for the RTL to do again.

    Attributes
    ----------
    config : golden.config.KvCache
    log : list
        As `Player.log`.
    events, moves : list
        Those of the controller, from its beginning on.
    error : dict or None
        Its first error.
    stall : float
        Probability with which each port idles or stalls in a cycle.
    seed : int
    interrupted : tuple of int
        After so many cycles each a reset cuts everything short, to begin again from the first command.
    """

    config: KvCache
    log: list
    events: list
    moves: list
    error: dict | None = None
    stall: float = 0.0
    seed: int = 0
    interrupted: tuple = ()

    @property
    def built(self):
        """The configuration that is built: jobs that differ in their pool and policy share a model."""
        return self.config.model_copy(update={"blocks": max(self.config.blocks, 64), "policy": KV_POLICIES[0]})


def replay(job, waves=False):
    """Give the RTL a job's commands, and compare all that it says.

    Returns
    -------
    list of int
        Cycles of each command, from when it is taken to when its completion is.

    Raises
    ------
    AssertionError
        At the first difference.
    """
    from hw.kvcache.controller import Controller as Rtl

    return submit(Rtl(job.built, PATIENCE), "sim.benches.kvcache", job, seed=job.seed, waves=waves, x_initial="unique")


def unpacked(command, word):
    """A completion's word in the command's own terms."""
    status = Status(word >> 8 & 0xFF)
    fields = SHORTFALL if status else PAYLOADS.get(command.opcode, {})
    return status, unpack(fields, word >> 16)


def read(path):
    """The trace in a file.

    Raises
    ------
    ValueError
        When it is not JSON, or not a trace.
    """
    try:
        trace = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(trace, dict) or not isinstance(trace.get("steps"), list):
        raise ValueError(f"{path}: a trace is an object with a list of steps")
    return trace


def play(trace, config=None):
    """Play a whole trace on the reference; return the `Player`.

    Parameters
    ----------
    trace : dict
    config : golden.config.KvCache
        What the trace's own `config` changes.

    Raises
    ------
    TraceError
        At the first step that differs from what it expects.
    """
    player = Player(trace, config)
    for number, step in enumerate(trace["steps"]):
        try:
            player.step(step)
        except (TraceError, ValueError, KeyError, TypeError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            lines = [f"step {number} ({step.get('op')}): {line}" for line in what.splitlines()]
            kind = TraceError if isinstance(error, TraceError) else ValueError
            raise kind("\n".join(lines)) from error
    return player


class Player:
    """Plays steps on a `golden.kvcache.Controller` and compares.

    Attributes
    ----------
    config : golden.config.KvCache
    controller : golden.kvcache.Controller
    log : list
        (command, completion, hits, ranges) of all commands, and the number of a sequence whose stream ended.
    expectations : int
        How many values were compared.
    """

    def __init__(self, trace, config=None):
        known = (config or KvCache()).model_dump()
        self.config = KvCache(**(known | trace.get("config", {})))
        self.controller = Controller(self.config)
        self.host = Host(self.config, self.run, trace.get("caching", True))
        self.lists = trace.get("tokens", {})
        self.sids, self.log, self.expectations = {}, [], 0

    def run(self, command, coverage=None):
        """Carry out a command; return its completion, and of a `LOOKUP` the blocks found."""
        assert command.word >= 0                # every value fits its field
        before = self.controller.tables()
        completion = coverage.run(self.controller, command) if coverage else self.controller.run(command)
        self.controller.check()
        if completion.status and self.controller.tables() != before:
            raise TraceError(f"I7: {command} was refused and changed the tables")
        hits = self.controller.hits if command.opcode == Opcode.LOOKUP and not completion.status else []
        reads = command.opcode in (Opcode.STREAM, Opcode.WRITE) and not completion.status
        self.log.append((command, completion, list(hits), list(self.controller.ranges) if reads else []))
        return completion, list(hits)

    def step(self, step):
        """Carry out a step and compare; return the `Step`."""
        first, events, moves = len(self.log), len(self.controller.events), len(self.controller.moves)
        free = set(self.controller.free)
        done = self._do(step)
        done.hits = [hit for *_, hits, _ in filter(_is_command, self.log[first:]) for hit in hits]
        done.ranges = [each for *_, ranges in filter(_is_command, self.log[first:]) for each in ranges]
        done.events, done.moves = self.controller.events[events:], self.controller.moves[moves:]
        named = self.sids.get(step.get("target", step.get("seq")), step.get("seq"))
        if isinstance(named, int) and named < self.config.sequences:
            done.new = [block for block in self.controller.sequences[named].entries
                        if block in free and block not in done.hits]
        self._compare({"status": "OK"} | step.get("expect", {}), done)
        return done

    def job(self, stall=0.0, seed=0, interrupted=()):
        """All that was done, for `replay`."""
        return Job(self.config, self.log, self.controller.events, self.controller.moves, self.controller.error,
                   stall, seed, interrupted)

    def dump(self):
        """Read all tables by commands, so that they come to stand in the log."""
        for sid, sequence in enumerate(self.controller.sequences):
            if sequence.state != State.CLOSED:
                self._stat(sequence.tenant, Table.SEQUENCE, sid)
                for entry in range(len(sequence.entries)):
                    self._stat(sequence.tenant, Table.ENTRY, sid, entry)
        for index in range(1, self.config.blocks):
            tenant = self.controller.blocks[index].tenant
            self._stat(tenant, Table.BLOCK, index)
            self._stat(tenant, Table.HASH, index)
            self._stat(tenant, Table.HASH, index, high=1)
        for tenant, hash in sorted(self.controller.cached):
            self.run(Command(Opcode.LOOKUP, {"tenant": tenant, "count": 1}, (hash,)))
        for index in range(len(COUNTERS)):
            self._stat(0, Table.COUNTER, index)

    def _stat(self, tenant, table, index, entry=0, high=0):
        self.run(Command(Opcode.STAT, {"tenant": tenant, "table": table, "index": index, "entry": entry,
                                       "high": high}))

    # From steps to commands

    def _do(self, step):
        op = step["op"]
        if op == "retire":
            sid = self._sid(step["seq"])
            self.controller.retire(sid)
            self.log.append(sid)
            return Step(Status.OK, {})
        if op == "prefill":
            sid, salt = self._sid(step["seq"], opens=True), step.get("salt", "")
            completion, _ = self.host.prefill(sid, self._tokens(step["tokens"]), self._tenant(step, sid), salt)
            self._forget_closed()
            return self._result(Opcode.ATTACH, completion)
        if op == "append" and not isinstance(step["tokens"], int):
            completion = self.host.append(self._sid(step["seq"]), self._tokens(step["tokens"]))
            return self._result(Opcode.APPEND, completion)
        command = self._command(op, step)
        completion, _ = self.run(command)
        if not completion.status:
            self.host.follow(command)
            if op == "stream" and not step.get("hold"):
                sid = command.arguments["sid"]
                self.controller.retire(sid)
                self.log.append(sid)
        self._forget_closed()
        return self._result(command.opcode, completion)

    def _command(self, op, step):
        """The command that a step names."""
        if op.upper() not in Opcode.__members__:
            known = ", ".join(opcode.name.lower() for opcode in Opcode)
            raise ValueError(f"no such operation; there are prefill, retire, {known}")
        opcode = Opcode[op.upper()]
        given = {name: value for name, value in step.items() if name not in PEOPLE}
        if "seq" in step:
            given["sid"] = self._sid(step["seq"], opens=opcode == Opcode.ALLOC_SEQ)
        if "target" in step:
            given["target"] = self._sid(step["target"], opens=True)
        given |= {"tenant": self._tenant(step, given.get("sid")), "gen": step.get("gen", 0)}
        operands = ()
        match opcode:
            case Opcode.LOOKUP | Opcode.ATTACH:
                salt = step.get("salt", "")
                if opcode == Opcode.LOOKUP and "tokens" in given:
                    operands = chain(self._tokens(given.pop("tokens")), self.config.block_tokens, salt)
                elif "hashes" in given:
                    operands = map(_number, given.pop("hashes"))
                    given |= {"by_hash": 1} if opcode == Opcode.ATTACH else {}
                else:
                    operands = given.pop("blocks", ())
                operands = tuple(operands)
                given["count"] = len(operands)
            case Opcode.COMMIT:
                full = len(self.host.tokens.get(given["sid"], ())) // self.config.block_tokens
                given.setdefault("index", max(full - 1, 0))
                if "hash" not in given:
                    given["hash"] = self.host.hash(given["sid"], given["index"])
            case Opcode.PIN | Opcode.UNPIN | Opcode.EVICT if "hash" in given:
                given["by_hash"] = 1
            case Opcode.STREAM:
                heads = given.get("heads", 1)
                given["heads"] = heads if isinstance(heads, int) else sum(1 << head for head in set(heads))
            case Opcode.STAT:
                given["table"] = Table[str(given.get("table", "counter")).upper()]
                if given["index"] in COUNTERS:
                    given["index"] = COUNTERS.index(given["index"])
        if "hash" in given:
            given["hash"] = _number(given["hash"])
        if unknown := set(given) - set(ARGUMENTS[opcode]) - {"tenant", "gen"}:
            raise ValueError(f"no such argument: {', '.join(sorted(unknown))}")
        return Command(opcode, {name: int(value) for name, value in given.items()}, operands)

    def _tokens(self, given):
        """A list of tokens from a trace: numbers, names of lists, runs of numbers, and lists of all that."""
        if isinstance(given, int):
            return [given]
        if isinstance(given, str):
            return self._tokens(self.lists[given])
        if isinstance(given, dict):
            first, count, step = given["from"], given["count"], given.get("step", 1)
            return [first + n * step for n in range(count)]
        return [token for each in given for token in self._tokens(each)]

    def _sid(self, name, opens=False):
        """The number of a sequence; a new name takes the lowest that is closed."""
        if isinstance(name, int):
            return name
        if name not in self.sids:
            if not opens:
                raise ValueError(f"no sequence is called {name!r}")
            self.sids[name] = next((sid for sid, each in enumerate(self.controller.sequences)
                                    if each.state == State.CLOSED and sid not in self.sids.values()),
                                   self.config.sequences)
        return self.sids[name]

    def _forget_closed(self):
        """Names of sequences that are closed may be given again."""
        self.sids = {name: sid for name, sid in self.sids.items() if sid < self.config.sequences
                     and self.controller.sequences[sid].state != State.CLOSED}

    def _tenant(self, step, sid):
        return step.get("tenant", self.host.tenants.get(sid, 0))

    def _result(self, opcode, completion):
        fields = PAYLOADS[opcode] if not completion.status else SHORTFALL
        return Step(completion.status, unpack(fields, completion.payload))

    # What a step may expect

    def _compare(self, expect, done):
        wrong = []
        for name, wanted in expect.items():
            found = self._found(name, wanted, done)
            self.expectations += 1
            if found != wanted:
                wrong.append(f"{name}: expected {json.dumps(wanted)}, found {json.dumps(found)}")
        if wrong:
            raise TraceError("\n".join(wrong))

    def _found(self, name, wanted, done):
        """What there is of an expectation, as JSON has it and as far as it was asked for."""
        controller = self.controller
        match name:
            case "status":
                return int(done.status) if isinstance(wanted, int) else done.status.name
            case "hits":
                return len(done.hits) if isinstance(wanted, int) else done.hits
            case "new":
                return len(done.new) if isinstance(wanted, int) else done.new
            case "free":
                return len(controller.free) if isinstance(wanted, int) else list(controller.free)
            case "table" | "length" | "state" | "inflight":
                return {seq: self._of_sequence(name, seq) for seq in wanted}
            case "refs":
                return {block: controller.blocks[int(block)].ref for block in wanted}
            case "pinned":
                return [index for index, block in enumerate(controller.blocks) if block.pinned]
            case "hashed" if isinstance(wanted, dict):
                return {block: controller.blocks[int(block)].hash is not None for block in wanted}
            case "hashed":
                return [index for index, block in enumerate(controller.blocks) if block.hash is not None]
            case "counters":
                return {counter: controller.gauges()[counter] for counter in wanted}
            case "error":
                return controller.error["status"].name if controller.error else None
            case "ranges":
                return [list(each) for each in done.ranges]
            case "events" if isinstance(wanted, dict):
                counts = Counter(kind.name.lower() for kind, *_ in done.events)
                return {kind: counts[kind] for kind in wanted}
            case "events":
                return [[kind.name.lower(), block] for kind, block, *_ in done.events]
            case "moves":
                return [[kind.name.lower(), *rest] for kind, *rest in done.moves]
        if name not in done.payload:
            raise ValueError(f"nothing to expect is called {name!r} here")
        return done.payload[name]

    def _of_sequence(self, name, seq):
        sequence = self.controller.sequences[int(seq) if seq.isdigit() else self._sid(seq)]
        return {"table": sequence.entries, "length": sequence.length, "inflight": sequence.inflight,
                "state": sequence.state.name}[name]


def _is_command(entry):
    return isinstance(entry, tuple)


def _number(value):
    """A hash: a number, or a string in hexadecimal."""
    return int(value, 16) if isinstance(value, str) else value
