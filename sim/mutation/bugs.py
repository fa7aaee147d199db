# SPDX-License-Identifier: Apache-2.0
"""Bugs by hand: what a tired engineer might have written, put into the source and found out.

    python -m sim.mutation.bugs NUMBER
"""

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from sim.run import ROOT

__all__ = ["BUGS", "Bug", "caught"]


@dataclass(frozen=True)
class Bug:
    """`old` in the source of `module` becomes `new`.

    `judge` is the label of the block whose contract is asked; without one, simulation is.
    """

    name: str
    module: str
    old: str
    new: str
    judge: str = ""


BUGS = [
    Bug("the last slice of K is one element short", "hw.matmul.walker",
        "last_k.eq(k_left <= depth)", "last_k.eq(k_left < depth)", "walker"),
    Bug("rows left for last are forgotten", "hw.matmul.walker",
        "m.d.sync += lower.eq(upper)", "m.d.sync += lower.eq(0)", "walker"),
    Bug("weights are overwritten before their swap", "hw.matmul.sequencer",
        "self.tile.valid & (~self.full | self.swap) & settled", "self.tile.valid & settled", "loader"),
    Bug("a completed row is replaced while the drain reads it", "hw.matmul.sequencer",
        "(self.wave.row < self.drained)", "(self.wave.row <= self.drained)", "sequencer"),
    Bug("one bad block spoils all after it", "hw.matmul.sequencer",
        "spoiled & ~(self.swap & given.first)", "spoiled", "sequencer"),
    Bug("a short response is remembered for ever", "hw.fetch",
        "m.d.sync += early.eq(0)", "m.d.sync += early.eq(early)", "fetch"),
    Bug("beats made up are not called bad", "hw.fetch",
        "ends & (early | ~self.response.payload.last)", "ends & ~self.response.payload.last", "fetch"),
    Bug("a refused command turns the double buffer", "hw.matmul.parameters",
        "half.eq(half ^ result)", "half.eq(~half)", "parameters"),
    Bug("column scales in place of the bias", "hw.matmul.parameters",
        "self.bias.eq(bias.read_data)", "self.bias.eq(columns.read_data)", "parameters"),
    Bug("row scale and column scale swapped", "hw.matmul.drain",
        "Mux(by_row.row_scaled, self.row_scale, ONE)", "Mux(by_column.row_scaled, self.row_scale, ONE)"),
    Bug("the drain reads without room for results", "hw.matmul.drain",
        "& (under_way != depth)", ""),
    Bug("the count of NaN goes on over commands", "hw.matmul.drain",
        "nans.eq(0), bad.eq(0),", "bad.eq(0),"),
    Bug("a row is read before it is complete", "hw.matmul.drain",
        "(Mux(half, done[1], done[0]) > row)", "(Mux(half, done[1], done[0]) >= row)", "drain"),
    Bug("a sum begins with what the last block left", "hw.matmul.accumulator",
        "Mux(adding.first, 0, old[col].sum) + self.sums[col]", "old[col].sum + self.sums[col]"),
    Bug("the last error counts, not the first", "hw.matmul.engine",
        "with m.Elif(self.error == Error.NONE):", "with m.Else():"),
    Bug("a block that lacks something stays quiet", "hw.matmul.engine",
        "& (passing.parity == n) & sequencer.bad)", "& (passing.parity != n) & sequencer.bad)"),
    Bug("a reference is taken from a row that is out of date", "hw.kvcache.walks",
        "row.eq(Mux(self.newer, late, self.blocks.row))", "row.eq(self.blocks.row)"),
    Bug("so is one of an operand after another", "hw.kvcache.prefixes",
        "self.row.eq(Mux(again, late, self.blocks.row))", "self.row.eq(self.blocks.row)"),
    Bug("a block leaves the list by a link that is out of date", "hw.kvcache.prefixes",
        "self.later.eq(Mux(follows, late_later, self.next.row))", "self.later.eq(self.next.row)"),
    Bug("and by one the other way", "hw.kvcache.prefixes",
        "self.prior.eq(Mux(precedes, late_prior, self.prev.row))", "self.prior.eq(self.prev.row)"),
    Bug("the free list's old head does not know what comes ahead of it", "hw.kvcache.walks",
        "m.d.comb += self.next.write(cursor, self.head), self.prev.write(self.head, cursor)",
        "m.d.comb += self.next.write(cursor, self.head)"),
    Bug("an empty list that is refilled at its head has no tail", "hw.kvcache.walks",
        "m.d.sync += self.tail.eq(cursor)", "m.d.sync += self.tail.eq(self.tail)"),
    Bug("the list's tail leaves, and the wrong block takes its place", "hw.kvcache.walks",
        "m.d.sync += self.tail.eq(prior)", "m.d.sync += self.tail.eq(later)"),
    Bug("a block that was copied keeps its reference", "hw.kvcache.tokens", "ref=row.ref - 1", "ref=row.ref"),
    Bug("the copy is forgotten when blocks are counted", "hw.kvcache.tokens",
        "Mux(shared, self.need >= self.count, self.need > self.count)", "self.need > self.count"),
    Bug("the last entry of a table cannot be filled", "hw.kvcache.tokens",
        "self.length > self.config.table", "self.length >= self.config.table"),
    Bug("a bucket's last block leaves, and the wrong one takes its place", "hw.kvcache.hashes",
        "Mux(first, 0, self.older.row)", "Mux(first, 0, self.younger.row)"),
    Bug("another tenant's hash is found", "hw.kvcache.hashes",
        "(self.hashes.row == key) & (row.tenant == self.tenant)", "self.hashes.row == key"),
    Bug("another tenant's cached block without references may be touched", "hw.kvcache.controller",
        "((row.ref != 0) | row.hashed) & (row.tenant", "(row.ref != 0) & (row.tenant"),
    Bug("a generation that is past still works", "hw.kvcache.controller",
        "(self.gen != 0) & (self.gen != row.gen)", "self.gen > row.gen"),
    Bug("the generation after the last is 0, which stands for any", "hw.kvcache.controller",
        "Mux(row.gen == 255, 1, row.gen + 1)", "row.gen + 1"),
    Bug("a window is one token too wide", "hw.kvcache.controller",
        "window.computed + 1 - window.window", "window.computed - window.window"),
    Bug("a block with the last sink is emptied", "hw.kvcache.controller",
        "self._entries(window.sinks)", "(window.sinks >> self.shift)"),
    Bug("a block that is not full is cached", "hw.kvcache.controller",
        "(row.length >> self.shift) <= self._given", "(row.length >> self.shift) < self._given"),
    Bug("the operand after a miss counts for the next command, too", "hw.kvcache.controller",
        "self.missed.eq(0)", "self.missed.eq(self.missed)"),
    Bug("a stream may not end with the last token", "hw.kvcache.spans",
        "self.slots > self.rest", "self.slots >= self.rest"),
    Bug("a cached block is written", "hw.kvcache.spans", "(row.ref > 1) | row.hashed", "row.ref > 1"),
    Bug("a block does not come back to the free list when `ATTACH` is undone", "hw.kvcache.prefixes",
        "with m.If(row.ref == 1):", "with m.If(row.ref == 0):"),
    Bug("a block that is let go stays pinned", "hw.kvcache.names", "self.unpins.eq(1)", "self.unpins.eq(0)"),
    Bug("all slots of the last block are swapped", "hw.kvcache.swaps",
        "last.eq(index + 1 == self.held)", "last.eq(index == self.held)"),
    Bug("flits of a bad frame count with the next good one", "hw.noc.chiplink",
        "with m.If(self.end | self.clear):", "with m.If(self.end & self.good | self.clear):"),
    Bug("a bad frame overwrites a flit that is here", "hw.noc.chiplink",
        "(offset < slots) & ~here[vc].bit_select(slot, 1)", "(offset < slots)"),
    Bug("a status that comes late turns back time", "hw.noc.chiplink",
        "fresh.eq(self.ack.valid & (ahead <= used[acked]))", "fresh.eq(self.ack.valid)"),
    Bug("a frame goes on with a flit that does not follow", "hw.noc.chiplink",
        "with m.If(self.follows & (count < self.burst)):",
        "with m.If(self.asks.bit_select(vc, 1) & (count < self.burst)):"),
    Bug("credits are given out that the far side does not have", "hw.noc.chiplink",
        "(owed[v] != 0) & (used[v] + self.depth - owed[v] < slots)", "owed[v] != 0"),
    Bug("a reset of the far side goes unnoticed", "hw.noc.chiplink",
        "(hello.peer != self.peer) | hello.heard & ~knows", "hello.heard & ~knows"),
    Bug("a packet overtakes one that has just begun to be added", "hw.noc.reduce",
        "~step.asked & ~step.busy", "~step.asked & ~valid[1]", "reduce"),
    Bug("packets of different groups are added", "hw.noc.reduce", "& (left.item.group == step.number)", ""),
    Bug("an operand is taken although the adder stands", "hw.noc.reduce",
        "join.eq(step.match & ~step.differ & go[0])", "join.eq(step.match & ~step.differ)", "reduce"),
    Bug("what is left of a dropped packet is taken for another", "hw.noc.reduce", "| astray & ~flit.head", ""),
    Bug("operands of different lengths are added", "hw.noc.reduce",
        "| flit.head & (header.length != step.header.length)", ""),
    Bug("a sum stays in the adder when its group is switched off", "hw.noc.reduce",
        "dead.eq(valid[1] & ~kept[1].whole & ~asks.any())", "dead.eq(0)"),
    Bug("to the first operand what was there before is added", "hw.noc.reduce",
        "Cat(flit.head & ~step.first, step.first)", "Cat(flit.head & ~step.first, flit.head & step.first)"),
    Bug("numbers whose exponents differ by one do not cancel", "hw.arith.combine",
        "opposite & ~places[1:].any()", "opposite & ~places.any()"),
    Bug("a packet of the size that just fits is cut", "hw.noc.sender",
        "more.eq(given.length > size)", "more.eq(given.length >= size)", "interface_sender"),
    Bug("the words of what is refused stay", "hw.noc.sender",
        "refused.eq(given.length != 0)", "refused.eq(0)", "interface_sender"),
    Bug("a request leaves when there is nearly place for its reply", "hw.noc.sender",
        "reserve <= self.room if", "reserve <= self.room + 1 if", "interface_sender"),
    Bug("the order of heads is forgotten", "hw.noc.receiver",
        "before[u, n] = ~since[len(stamp) - 1]", "before[u, n] = since[len(stamp) - 1]"),
    Bug("a packet's mark comes off before its end", "hw.noc.receiver",
        "spoiled & begun | damaged | wrong", "damaged | wrong", "interface_receiver"),
    Bug("what is dropped gives no credit", "hw.noc.receiver",
        "self.credit[n].eq(queue.o.valid & queue.o.ready)",
        "self.credit[n].eq(queue.o.valid & queue.o.ready & ~drops[n])", "interface_receiver"),
    Bug("replies that leave make no place", "hw.noc.receiver",
        "self.dropped + (self.o.valid & self.o.ready)", "self.dropped", "interface_replies"),
    Bug("a packet that goes on takes the virtual channel of the next", "hw.noc.interface",
        "output.owns[n].eq(~sender.flit.head)", "output.owns[n].eq(0)"),
    Bug("a credit goes back as the flit comes", "hw.noc.lane",
        "self.credit.eq(slots.pop)", "self.credit.eq(slots.push)", "router_corner"),
    Bug("what a router drops gives no credit", "hw.noc.lane",
        "self.credit.eq(slots.pop)", "self.credit.eq(self.taken)"),
    Bug("a credit counts twice", "hw.noc.output",
        "Mux(self.credit, self.used >> 1, self.used)", "Mux(self.credit, self.used >> 2, self.used)", "router_credits"),
    Bug("a credit is lost if a flit leaves at that time", "hw.noc.output",
        "Mux(self.send, Cat(1, self.left), self.left)", "Mux(self.send, Cat(1, self.used), self.left)",
        "router_credits"),
    Bug("a body goes without a credit", "hw.noc.output",
        "self.channel[n][w] & ~credits[w].used[-1] for w", "self.channel[n][w] for w", "router_corner"),
    Bug("a packet is given a virtual channel that another is on", "hw.noc.output",
        "one.busy | one.left[-1])", "one.left[-1])", "router_corner"),
    Bug("a virtual channel that is claimed is given to another", "hw.noc.output",
        "m.d.sync += self.busy.eq(1)", "m.d.sync += self.busy.eq(self.busy)", "router_credits"),
    Bug("packets of a bucket take two virtual channels", "hw.noc.output",
        "Mux(closed, 0, ~reduce(or_, taken))", "Mux(closed, 0, (1 << BUCKETS) - 1)"),
    Bug("of the packet that leaves now the bucket is forgotten", "hw.noc.output",
        "credits[u].buckets | credits[u].bucket | credits[u].youngest", "credits[u].buckets"),
    Bug("a multicast begins without room for all of it", "hw.noc.output",
        "begins = begins & ~(credits[vc].left & self.need[n]).any()", "begins = begins & 1"),
    Bug("who was served stays first", "hw.noc.arbiter",
        "m.d.sync += bit.eq(self.grant[a])", "m.d.sync += bit.eq(bit)", "router_arbiter"),
    Bug("a fork sends by one output twice", "hw.noc.multicast",
        "self.route & asks & ~sent & self.there.replicate(5)", "self.route & asks & self.there.replicate(5)",
        "router_fork"),
    Bug("a fork forgets an output", "hw.noc.multicast",
        "((self.route & ~(sent | goes)) == 0)", "goes.any()", "router_fork"),
    Bug("a fork goes ahead before it has all outputs", "hw.noc.multicast",
        "goes = self.grant & whole.replicate(5)", "goes = self.grant & kept", "router_fork"),
    Bug("a fork takes outputs in any order", "hw.noc.multicast",
        "kept[port].eq(self.route[port] & has & whole)", "kept[port].eq(self.route[port] & has)", "router_fork"),
    Bug("a rectangle is one node too wide", "hw.noc.multicast", "high: there < last", "high: there <= last"),
    Bug("a packet turns one router late", "hw.noc.lane",
        "target[way] == (here[way] + step[way])[:len(here[way])]", "target[way] == here[way]"),
    Bug("a packet turns the wrong way", "hw.noc.lane",
        "low: reached & below, high: reached & above", "low: reached & above, high: reached & below"),
    Bug("the parity is that of the old route", "hw.noc.lane",
        "front.parity ^ front.head & (inside | change)", "front.parity ^ front.head & inside", "router_corner"),
    Bug("a head of odd parity goes on", "hw.noc.lane", "head & (odd | astray)", "head & astray"),
    Bug("the rest of a packet that was dropped goes on", "hw.noc.lane",
        "lost.eq(~front.head & ~inside)", "lost.eq(0)"),
    Bug("a flit comes to the front ahead of one that waits", "hw.noc.lane",
        "past.eq(~self.used[0] | self.pop & ~self.used[1])", "past.eq(~self.used[0] | self.pop)", "router_slots"),
    Bug("a result goes by any output that is free", "hw.noc.router",
        "unit.wants[n].eq(o.valid & o.payload.outputs[out])", "unit.wants[n].eq(o.valid)"),
    Bug("a packet's virtual channel is that of the one before", "hw.noc.router",
        "with m.If(lane.taken & ~lane.inside):", "with m.If(lane.taken & lane.o.tail):"),
    Bug("a head begins with the queries of one that is done", "hw.attention.intake",
        "(refused | loading & self.full", "(refused | self.full", "attention_intake"),
    Bug("values are written over others that are not yet summed", "hw.attention.intake",
        "(waits < depth - 1) & (groups != widths.slots)", "(waits < depth - 1)", "attention_intake"),
    Bug("a stream that ends early leaves its last group open", "hw.attention.intake",
        "value_closes.eq(closed & (ahead != 0) & fits)", "value_closes.eq(closed & (ahead == 2) & fits)"),
    Bug("one sink too many", "hw.attention.intake", "(counts[0] < now.sinks)", "(counts[0] <= now.sinks)"),
    Bug("a head's first group joins the last head's", "hw.attention.weights",
        "valued.eq((valued | query.largest.some) & ~now.ends_head)", "valued.eq(valued | query.largest.some)"),
    Bug("weights are made where others are in use", "hw.attention.weights",
        "groups.o.valid & self.heads.valid & (used != 2)", "groups.o.valid & self.heads.valid"),
    Bug("a head without a sink begins with a sum of 2**0", "hw.attention.weight",
        "known.eq(self.sinks)", "known.eq(1)"),
    Bug("a group's powers are added to the last group's once more", "hw.attention.weight",
        "Mux(first, 0, share)", "share"),
    Bug("the largest score is that of the group before", "hw.attention.scores",
        "held.some.eq(now.some & ~done.closes)", "held.some.eq(now.some)"),
    Bug("a query that met a NaN stays so in the next head", "hw.attention.scores",
        "nan.eq(worse & ~(done.closes & done.ends_head))", "nan.eq(worse)"),
    Bug("a bad key spoils the next one, too", "hw.attention.scores", "bad & ~item.starts", "bad"),
    Bug("the first group of a head shifts to an exponent that is past", "hw.attention.align",
        "(~i.before | (exponent > self.exponent))", "(exponent > self.exponent)"),
    Bug("the smallest normal number's exponent is that of subnormals", "hw.attention.mean",
        "none | (field <= 0)", "none | (field < 0)"),
    Bug("subnormal elements count as if they had a one ahead", "hw.attention.elements",
        "code[fmt.mantissa:-1].any())))", "~bad(widths, code))))"),
    Bug("results come without room for them", "hw.attention.attention",
        "intake.finals.valid & (room != 0)", "intake.finals.valid"),
    Bug("a head completes with the sums of the next", "hw.attention.attention",
        "Mux(ends & group.ends, PAUSE,", "Mux(ends & group.ends, 0,"),
    Bug("a query's element is rounded beyond all bits", "hw.attention.queries",
        "Cat(low & ~Cat(high).all(), high)", "Cat(low, high)"),
]


def caught(number):
    """By what a bug is caught, or None; in a process of its own, whose modules have the bug."""
    done = subprocess.run([sys.executable, "-m", __spec__.name, str(number)], cwd=ROOT, text=True,
                          capture_output=True)
    if done.returncode:
        raise RuntimeError(f"bug {number}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _plant(bug):
    """Load the module with the bug, ahead of all that import it."""
    spec = importlib.util.find_spec(bug.module)
    source = Path(spec.origin).read_text()
    if source.count(bug.old) != 1:
        raise ValueError(f"{bug.module} has {bug.old!r} {source.count(bug.old)} times, not once")
    module = ModuleType(bug.module)
    module.__spec__, module.__file__, module.__package__ = spec, spec.origin, bug.module.rpartition(".")[0]
    sys.modules[bug.module] = module
    exec(compile(source.replace(bug.old, bug.new), spec.origin, "exec"), module.__dict__)


def _judge(bug):
    # Only now: these modules must see the bug.
    if bug.judge:
        return _asked(bug)
    if bug.module.startswith("hw.kvcache"):
        from sim.kvcache import replay
        from sim.mutation.kvcache import jobs

        return _simulated(replay, jobs(far=False))
    if bug.module == "hw.noc.chiplink":
        from sim.mutation.chiplink import check, jobs

        return _simulated(check, jobs())
    if bug.module.startswith("hw.attention"):
        from sim.attention import run
        from sim.mutation.attention import CONFIGS, jobs

        return _simulated(run, [job for kv in CONFIGS.values() for job in jobs(kv)])
    if bug.module in ("hw.noc.reduce", "hw.arith.combine"):
        from sim.mutation.noc_reduce import BENCHES
    elif bug.module in ("hw.noc.sender", "hw.noc.receiver", "hw.noc.interface"):
        from sim.mutation.interface import BENCHES
    elif bug.module.startswith("hw.noc"):
        from sim.mutation.router import BENCHES
    else:
        from sim.matmul import run
        from sim.mutation.campaign import jobs

        return _simulated(run, jobs())
    from sim.run import simulate

    return _simulated(lambda bench: simulate(*bench[:2], seed=1, env=bench[2]), BENCHES)


def _asked(bug):
    """What of its contract the block breaks."""
    from sim.mutation import attention, campaign, interface, noc_reduce, router
    from sim.mutation.judge import breach

    targets = [router.CORNER, *(
        target for each in (campaign, interface, noc_reduce, router, attention) for target in each.inside()[1])]
    task = next(target.task for target in targets if target.label == bug.judge)
    with tempfile.TemporaryDirectory() as folder:
        found = breach(replace(task, depth=task.depth + 6), Path(folder), timeout=200)
    return found and f"contract, cycle {found[1]}: {found[0]}"


def _simulated(run, jobs):
    """The first job that fails."""
    for n, job in enumerate(jobs):
        try:
            run(job)
        except AssertionError as error:
            _, found, log = str(error).rpartition("see ")
            said = found and re.findall("AssertionError: (.*)", Path(log).read_text())
            return f"simulation, job {n}: {said[0][:200] if said else error}"
    return None


if __name__ == "__main__":
    planted = BUGS[int(sys.argv[1])]
    _plant(planted)
    print(json.dumps(_judge(planted)))
