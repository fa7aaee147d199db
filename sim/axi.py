# SPDX-License-Identifier: Apache-2.0
"""An AXI4 memory for cocotb benches, which checks what it is asked.

It makes the most of what the standard leaves open: a read sees memory as it is when it is asked for, or when
its beat leaves; a write takes effect when its data come, or just before its response, and its data may come before
its address; and, if `shuffled`, answers of different ids overtake each other. Whoever orders them by anything but
responses is found out.
"""

import random
from collections import deque

import cocotb
from cocotb.triggers import RisingEdge

__all__ = ["DECERR", "SLVERR", "Ideal", "Memory", "peer"]

OKAY, SLVERR, DECERR = 0, 2, 3
PAGE = 4096
CHANNELS = {"ar": ("id", "addr", "len"), "aw": ("id", "addr", "len"), "w": ("data", "strb", "last"),
            "r": ("id", "data", "resp", "last"), "b": ("id", "resp")}


class Ideal:
    """Timing of a memory that answers after `latency` cycles, then a beat a cycle."""

    def __init__(self, latency=1):
        self.latency, self.due, self.cycle = latency, deque(), 0

    def read(self, address, beats):
        """A burst is asked for."""
        self.due.extend(self.cycle + self.latency + n for n in range(beats))

    def write(self, address, beats):
        """The data of a burst are there."""

    def step(self):
        """A cycle passes. How many more beats, in the order asked, may leave from now on."""
        self.cycle += 1
        count = 0
        while self.due and self.due[0] <= self.cycle:
            self.due.popleft()
            count += 1
        return count


class Memory:
    """Serves the port `prefix` of a dut.

    Parameters
    ----------
    dut : handle
    prefix : str
        The signals are called `<prefix>__araddr` and so on.
    data : bytearray
        The contents, from address 0 on.
    timing : object with `read`, `write`, `step` and `latency`
        By default `Ideal(1)`.
    stall : float
        Probability with which each channel stalls or idles in a cycle.
    shuffled : bool
        Answers of different ids overtake each other.
    errors : dict of (str, range) to int
        Responses other than OKAY, by channel, "r" or "b", and address.
    deaf : dict of str to int
        From which cycle on a channel does not move any more.
    hesitant : bool
        A burst's address is taken only once its data wait, as the standard allows.
    runs : bool
        By itself; otherwise `step` has to be called after each rising edge.

    Attributes
    ----------
    cycles : dict of str to list of int
        When each channel moved.
    reads : list of (id, beats)
        Bursts asked for.
    returned : list of int
        Ids of the beats read.
    """

    def __init__(self, dut, prefix, data, *, timing=None, stall=0.0, shuffled=False, errors=None, deaf=None,
                 hesitant=False, runs=True):
        self.dut, self.data, self.timing, self.stall = dut, data, timing or Ideal(), stall
        self.shuffled, self.errors, self.deaf, self.hesitant = shuffled, errors or {}, deaf or {}, hesitant
        self.rng = random.Random(f"{cocotb.RANDOM_SEED} {prefix}")
        self.pins = {f"{way}{name}": getattr(dut, f"{prefix}__{way}{name}")
                     for way, names in CHANNELS.items() for name in (*names, "valid", "ready")}
        self.pins |= {f"{way}{name}": getattr(dut, f"{prefix}__{way}{name}")
                      for way in ("ar", "aw") for name in ("size", "burst")}
        self.beat = len(self.pins["wstrb"])
        self.cycle, self.reads, self.returned, self.cycles = 0, [], [], {way: [] for way in CHANNELS}
        self.blocked, self.starved = dict.fromkeys(CHANNELS, 0), dict.fromkeys(CHANNELS, 0)
        self._reset()
        if runs:
            cocotb.start_soon(self._run())

    def check_stalls(self):
        """Assert that requests were blocked and starved, and that answers never had to wait."""
        for way, blocked in {"ar": True, "aw": True, "w": True, "r": False, "b": False}.items():
            assert bool(self.blocked[way]) == blocked, f"channel {way} was blocked in {self.blocked[way]} cycles"
            assert self.starved[way], f"channel {way} was never starved"

    def step(self):
        """A cycle has passed."""
        self.cycle += 1
        if int(self.dut.rst.value):
            self._reset()
            return
        self.credit += self.timing.step()
        for way in "ar", "aw", "w":
            if self._moves(way, self._get(f"{way}valid"), self.driven[f"{way}ready"]):
                getattr(self, f"_take_{way}")()
            self._put(f"{way}ready", int(self._willing(way)))
        for way in "r", "b":
            valid = self.driven[f"{way}valid"]
            if self._moves(way, valid, self._get(f"{way}ready")) or not valid:
                item = getattr(self, f"_next_{way}")() if self._willing(way) else None
                self._put(f"{way}valid", int(item is not None))
                for name, value in zip(CHANNELS[way], item or (), strict=False):
                    self._put(way + name, value)

    def _reset(self):
        self.driven, self.waiting, self.credit = {}, {}, 0
        self.due, self.bursts, self.words = deque(), deque(), deque()
        for way in CHANNELS:
            self._put(f"{way}{'valid' if way in ('r', 'b') else 'ready'}", 0)

    async def _run(self):
        while True:
            await RisingEdge(self.dut.clk)
            self.step()

    def _get(self, name):
        return int(self.pins[name].value)

    def _put(self, name, value):
        if self.driven.get(name) != value:
            self.pins[name].value = self.driven[name] = value

    def _willing(self, way):
        if way == "aw" and self.hesitant and not (self.words or self._get("wvalid")):
            return False
        return self.cycle < self.deaf.get(way, 1 << 60) and self.rng.random() >= self.stall

    def _moves(self, way, valid, ready):
        """Whether a channel moves; what waits in it must not change."""
        self.blocked[way] += valid and not ready
        self.starved[way] += ready and not valid
        if not valid:
            assert way not in self.waiting, f"channel {way} took back what waited"
            return False
        if not ready or way in self.waiting:
            now = [self._get(way + name) for name in CHANNELS[way]]
            assert self.waiting.setdefault(way, now) == now, f"channel {way} changed what waited"
        if ready:
            self.waiting.pop(way, None)
            self.cycles[way].append(self.cycle)
        return bool(ready)

    def _burst(self, way):
        id, address, beats = self._get(f"{way}id"), self._place(self._get(f"{way}addr")), self._get(f"{way}len") + 1
        assert self._get(f"{way}burst") == 1 and 1 << self._get(f"{way}size") == self.beat
        end = address + beats * self.beat
        assert address % self.beat == 0 and address // PAGE == (end - 1) // PAGE, f"burst {address:#x} to {end:#x}"
        assert end <= len(self.data), f"{address:#x} is beyond the memory"
        return id, address, beats

    def _place(self, address):
        """Where in `data` an address lies."""
        return address

    def _response(self, way, first, last):
        return next((code for (each, where), code in self.errors.items()
                     if each == way and where.start <= last and first < where.stop), OKAY)

    def _word(self, at):
        return int.from_bytes(self.data[at:at + self.beat], "little")

    def _take_ar(self):
        id, address, beats = self._burst("ar")
        early = self.rng.random() < 0.5
        self.reads.append((id, beats))
        for n in range(beats):
            at = address + n * self.beat
            self.due.append((id, at, self._word(at) if early else None, self._response("r", at, at),
                             int(n == beats - 1)))
        self.timing.read(address, beats)

    def _next_r(self):
        if not self.credit or not self.due:
            return None
        self.credit -= 1
        place = 0
        if self.shuffled:
            ids = [each[0] for each in self.due]
            place = ids.index(self.rng.choice(sorted(set(ids))))
        id, at, data, response, last = self.due[place]
        del self.due[place]
        self.returned.append(id)
        return id, self._word(at) if data is None else data, response, last

    def _take_aw(self):
        id, address, beats = self._burst("aw")
        self.bursts.append({"id": id, "address": address, "beats": beats, "data": [],
                            "early": self.rng.random() < 0.5})
        self._fill()

    def _take_w(self):
        self.words.append((self._get("wdata"), self._get("wstrb"), self._get("wlast")))
        self._fill()

    def _fill(self):
        """Data go to their bursts."""
        for burst in self.bursts:
            while self.words and "due" not in burst:
                data, strobe, last = self.words.popleft()
                burst["data"].append((burst["address"] + len(burst["data"]) * self.beat, data, strobe))
                if burst["early"]:
                    self._store(burst["data"][-1:])
                assert last == (len(burst["data"]) == burst["beats"])
                if last:
                    self.timing.write(burst["address"], burst["beats"])
                    burst["due"] = self.cycle + self.timing.latency

    def _store(self, words):
        for at, data, strobe in words:
            for n, byte in enumerate(data.to_bytes(self.beat, "little")):
                if strobe >> n & 1:
                    self.data[at + n] = byte

    def _next_b(self):
        first = {}      # of each id
        for burst in self.bursts:
            first.setdefault(burst["id"], burst)
        due = [burst for burst in first.values() if burst.get("due", self.cycle + 1) <= self.cycle]
        burst = self.rng.choice(due) if due and self.shuffled else self.bursts[0] if self.bursts else None
        if burst not in due:
            return None
        self.bursts.remove(burst)
        if not burst["early"]:
            self._store(burst["data"])
        return burst["id"], self._response("b", burst["address"], burst["data"][-1][0])


def peer(dut, prefix, data, stall=0.0):
    """cocotbext-axi's `AxiRam` in place of a `Memory`: somebody else's reading of the standard."""
    from cocotbext.axi import AxiBus, AxiRam

    ram = AxiRam(AxiBus.from_prefix(dut, f"{prefix}_"), dut.clk, dut.rst, mem=data)
    rng = random.Random(f"{cocotb.RANDOM_SEED} {prefix}")
    for side in ram.write_if, ram.read_if:
        side.log.setLevel("WARNING")
    if stall:
        writes, reads = ram.write_if, ram.read_if
        for channel in writes.aw_channel, writes.w_channel, writes.b_channel, reads.ar_channel, reads.r_channel:
            channel.set_pause_generator(iter(lambda: rng.random() < stall, None))
    return ram
