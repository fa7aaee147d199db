# SPDX-License-Identifier: Apache-2.0
"""Bench of a `Router`: the jobs of `sim.mutation.router` against golden, and what was seen in each cycle."""

import random
from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

from golden.packet import HEADER, Port, flit
from golden.paging import unpack
from sim.link import Receiver, Sender
from sim.mutation.replay import Replay
from sim.mutation.router import CONFIG, TOP, jobs
from sim.stream import reset

__all__ = ["record"]

JOBS = jobs()
NAMES = [port.name.lower() for port in Port]
QUIET = 20          # cycles after which nothing more comes


@cocotb.test
@cocotb.parametrize(number=range(len(JOBS)))
async def played(dut, number):
    await record(dut, JOBS[number])


async def record(dut, job):
    """Play a job; return inputs and what is seen in each cycle, once that is as golden says."""
    replay, run, rng = Replay(dut, TOP), [], random.Random(job.seed)
    for handle in replay.inputs.values():
        handle.value = 0
    dut.x.value, dut.y.value = job.here
    recording = cocotb.start_soon(replay.record(run))
    await reset(dut)
    for word in job.writes:
        dut.write.value = word
        await RisingEdge(dut.clk)
    dut.write.value = 0
    senders = {port: Sender(dut, f"{port.name.lower()}_i", CONFIG.data, job.depth, idle=job.idle) for port in Port}
    receivers = {port: Receiver(dut, f"{port.name.lower()}_o", CONFIG.data, CONFIG.depth, stall=job.stall)
                 for port in Port}
    for port, packets in job.sent.items():
        for each in packets:
            senders[port].send(*each)
    quiet = 0
    for _ in range(job.cycles):
        await RisingEdge(dut.clk)
        busy = any(sender.queue or sender.busy or any(sender.there) for sender in senders.values())
        quiet = 0 if busy or any(int(getattr(dut, f"{name}_o__valid").value) for name in NAMES) else quiet + 1
        if quiet == QUIET:
            break
        dut.clear.value = rng.random() < job.clear
        dut.probe.value = rng.randrange(1 << len(dut.probe))
    recording.cancel()
    if job.leaves is not None:
        assert quiet == QUIET, "it does not end"
        for port, receiver in receivers.items():
            check(receiver.packets, {flow: deque(due) for flow, due in job.leaves.get(port, {}).items()})
            follow(port, run)
    return run


def check(packets, left):
    """All that is due has left, whole and in order."""
    for vc, flits in packets:
        flow = next((flow for flow, due in left.items() if due and due[0].get(vc) == flits), None)
        assert flow is not None, f"this is not due: {flits}"
        left[flow].popleft()
    assert not any(left.values()), "something is missing"


def follow(port, run):
    """A packet of several virtual channels takes none while one to the same node is in the buffer behind another; a
    multicast begins only with room for all of it."""
    name, layout, behind = port.name.lower(), flit(CONFIG.data), [deque() for _ in range(CONFIG.vcs)]
    nodes = [None] * CONFIG.vcs     # of the packets that left last
    kinds = {vc: each for each in CONFIG.classes for vc in CONFIG.channels(each.name)}
    for inputs, seen in run:
        for vc, flits in enumerate(behind):
            if inputs[f"{name}_o__credit"] >> vc & 1:
                flits.popleft()
        if valid := seen[f"{name}_o__valid"]:
            vc, fields = valid.bit_length() - 1, unpack(layout, seen[f"{name}_o__flit"])
            if fields["head"]:
                header = unpack(HEADER, fields["data"])
                node = header["dst_x"], header["dst_y"]
                others = [behind[each] for each in CONFIG.channels(kinds[vc].name) if each != vc]
                assert port == Port.L or not any(node in flits for flits in others), "a flow is on two channels"
                assert not kinds[vc].multicast or len(behind[vc]) + header["length"] < CONFIG.depth, (
                    "a multicast begins without room")
                nodes[vc] = node
            behind[vc].append(nodes[vc])
