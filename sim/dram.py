# SPDX-License-Identifier: Apache-2.0
"""The timing of a DRAM channel behind an AXI4 memory: rows, banks, refresh and the turn of the data bus."""

from collections import deque

__all__ = ["Dram", "sequential"]


class Bank:
    """A bank: its open row, and from when on it takes which command."""

    def __init__(self):
        self.row, self.wanted = None, deque()       # wanted: accesses in order
        self.column = self.precharge = self.activate = 0.0


class Access:
    """A beat that is to be read or written."""

    def __init__(self, number, bank, row, write):
        self.number, self.bank, self.row, self.write = number, bank, row, write
        self.missed = False


class Dram:
    """Timing for `sim.axi.Memory`: a command for a column each cycle at most, and whatever opens rows ahead of it.

    Consecutive pages lie in different banks; so do, as bits of the row are folded into the bank's number, most
    that are a power of two apart. Beats are read in the order of their rows' readiness and
    returned in the order asked. Writes are posted: they are gathered until there are half as many as the
    queue holds, or nothing is to be read.

    Parameters
    ----------
    config : golden.config.Dram
    beat : int
        Bytes.

    Attributes
    ----------
    hits, misses, turns, refreshes : int
        Beats that found their row open, or not; turns of the data bus; refreshes.
    """

    latency = 1         # of a write's response

    def __init__(self, config, beat):
        self.config, self.beat = config, beat
        self.banks = [Bank() for _ in range(config.banks)]
        self.now, self.refresh, self.blocked = 0.0, config.trefi, 0.0
        self.reads, self.writes, self.active = deque(), deque(), []        # of which `active` are in the banks
        self.numbers, self.next, self.arrived = 0, 0, {}                   # of reads: asked, to be returned, back
        self.activations = deque([-1e9] * 4, maxlen=4)
        self.last_read = self.last_write = -1e9
        self.writing = False
        self.hits = self.misses = self.turns = self.refreshes = 0

    def read(self, address, beats):
        for n in range(beats):
            self.reads.append(self._access(address + n * self.beat, self.numbers, False))
            self.numbers += 1

    def write(self, address, beats):
        self.writes.extend(self._access(address + n * self.beat, 0, True) for n in range(beats))

    def step(self):
        """A cycle passes. How many more beats, in the order asked, may leave from now on."""
        self.now += self.config.cycle
        self._turn()
        if self.now >= self.refresh:
            self._refresh()
        if self.now >= self.blocked:
            self._column()
            self._rows()
        count = 0
        while self.arrived.get(self.next, 1e18) <= self.now:
            del self.arrived[self.next]
            self.next += 1
            count += 1
        return count

    def _access(self, address, number, write):
        row, bank = divmod(address // self.config.page, self.config.banks)
        folded = row
        while folded:
            bank ^= folded % self.config.banks
            folded //= self.config.banks
        return Access(number, self.banks[bank], row, write)

    def _turn(self):
        """Which way data go, and which accesses the controller sees."""
        full = len(self.writes) >= self.config.queue // 2
        over = not self.writes if self.writing else full or not self.reads
        if over and not self.active and (self.reads or self.writes):
            self.writing = not self.writing
            self.turns += 1
        source = self.writes if self.writing else () if full else self.reads
        while source and len(self.active) < self.config.queue:
            access = source.popleft()
            self.active.append(access)
            access.bank.wanted.append(access)

    def _refresh(self):
        """All banks are closed as soon as they can be, and refreshed."""
        config = self.config
        start = max(self.now, *(bank.precharge if bank.row is not None else bank.activate for bank in self.banks))
        self.blocked = start + config.trpab + config.trfc
        self.refresh += config.trefi
        self.refreshes += 1
        for bank in self.banks:
            bank.row, bank.activate = None, self.blocked

    def _column(self):
        """Read or write the oldest beat that can be."""
        config, now = self.config, self.now
        may = now >= (self.last_read + config.trtw if self.writing else
                      self.last_write + config.wl + config.cycle + config.twtr)
        access = next((each for each in self.active if each.bank.wanted[0] is each and each.bank.row == each.row
                       and each.bank.column <= now), None) if may else None
        if access is None:
            return
        self.active.remove(access)
        bank = access.bank
        bank.wanted.popleft()
        self.hits += not access.missed
        self.misses += access.missed
        if access.write:
            self.last_write = now
            bank.precharge = max(bank.precharge, now + config.wl + config.cycle + config.twr)
        else:
            self.last_read = now
            bank.precharge = max(bank.precharge, now + config.trtp)
            self.arrived[access.number] = now + config.rl + config.cycle

    def _rows(self):
        """Open the rows that the banks' next accesses want."""
        config, now = self.config, self.now
        for bank in self.banks:
            if not bank.wanted or bank.wanted[0].row == bank.row:
                continue
            if bank.row is not None and bank.precharge <= now:
                bank.row, bank.activate = None, max(bank.activate, now + config.trp)
            spaced = self.activations[-1] + config.trrd, self.activations[0] + config.tfaw
            if bank.row is None and now >= max(bank.activate, *spaced):
                bank.row, bank.wanted[0].missed = bank.wanted[0].row, True
                bank.column, bank.precharge = now + config.trcd, now + config.tras
                self.activations.append(now)


def sequential(config, beat, beats, burst, ahead):
    """Cycles from the first to the last beat of a plain linear read, `ahead` beats asked for in advance."""
    dram, asked, came, first, cycle = Dram(config, beat), 0, 0, None, 0
    while came < beats:
        cycle += 1
        came += dram.step()
        first = first or (cycle if came else None)
        if asked < beats and asked + burst - came <= ahead:
            dram.read(asked * beat, burst)
            asked += burst
    return cycle - first + 1
