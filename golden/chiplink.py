# SPDX-License-Identifier: Apache-2.0
"""What a chip link does: a reference of one side of it, frame by frame.

Each virtual channel has numbers of its own and a window of `slots` flits, which is the buffer at the far side: a flit
may only be sent while there is a slot for it, its number modulo `slots`, and stays with the sender until it is known to
have left that slot. What is not known to have arrived is sent again after a while.
"""

from collections import deque
from dataclasses import dataclass, field

from golden.framing import CRC, ESCAPE, FLAG, FLIP, HEARD, HELLO, RESIDUE, SEQUENCE, STATUS_VC, VC, Error

__all__ = ["Frame", "Side", "decode", "encode", "seed", "split", "step"]

MASK = (1 << SEQUENCE) - 1


def step(state, byte):
    """The CRC's register a byte further."""
    state ^= byte
    for _ in range(8):
        state = state >> 1 ^ (CRC if state & 1 else 0)
    return state


def seed(sender=0, receiver=0):
    """The CRC's register at the begin of a frame: after the numbers of the two sessions."""
    return step(step(0xFFFF_FFFF, sender), receiver)


@dataclass
class Frame:
    """A frame; `flits` are bytes."""

    hello: bool = False
    heard: bool = False
    vc: int = 0
    seq: int = 0
    flits: list = field(default_factory=list)
    status_vc: int = 0
    freed: int = 0
    map: int = 0


def encode(frame, slots, key=(0, 0)):
    """Bytes on the line."""
    control = frame.hello << HELLO | frame.heard << HEARD | frame.vc << VC | frame.status_vc << STATUS_VC
    content = bytes([control, frame.seq]) + b"".join(frame.flits) + bytes([frame.freed]) + frame.map.to_bytes(
        -(-slots // 8), "little")
    state = seed(*key)
    for byte in content:
        state = step(state, byte)
    content += (state ^ 0xFFFF_FFFF).to_bytes(4, "little")
    stuffed = b"".join(bytes([ESCAPE, byte ^ FLIP]) if byte in (FLAG, ESCAPE) else bytes([byte]) for byte in content)
    return stuffed + bytes([FLAG])


def split(line):
    """What is between flags, in a list; and what comes after the last."""
    *frames, rest = bytes(line).split(bytes([FLAG]))
    return frames, rest


def decode(stuffed, size, slots, key=(0, 0)):
    """The frame that some bytes between flags are, if it is a good one; `size` is that of a flit."""
    content, escaped = bytearray(), False
    for byte in stuffed:
        if byte == ESCAPE:
            escaped = True
        else:
            content.append(byte ^ FLIP if escaped else byte)
            escaped = False
    if not content:
        return None
    state = seed() if content[0] >> HELLO & 1 else seed(*key)
    for byte in content:
        state = step(state, byte)
    if state != RESIDUE:
        return None
    control, seq, tail = content[0], content[1], len(content) - 5 - -(-slots // 8)
    return Frame(
        bool(control >> HELLO & 1), bool(control >> HEARD & 1), control >> VC & 3, seq,
        [bytes(content[n:n + size]) for n in range(2, tail, size)], control >> STATUS_VC & 3, content[tail],
        int.from_bytes(content[tail + 1:-4], "little"))


class Side:
    """One side of a link.

    Parameters
    ----------
    size : int
        Bytes of a flit.
    vcs : int
        Virtual channels.
    slots : int
        Flits of a channel that may be under way.
    session : int
        Another number after each reset.
    """

    def __init__(self, size, vcs, slots, session):
        self.size, self.vcs, self.slots, self.session = size, vcs, slots, session
        self.error, self.up, self.peer = Error.NONE, False, None
        self._begin()

    def _begin(self):
        channels = range(self.vcs)
        self.base, self.next = [0 for _ in channels], [0 for _ in channels]
        self.kept = [{} for _ in channels]                  # flits by number, until their slot is free
        self.due = [deque() for _ in channels]              # numbers, to be sent
        self.here = [{} for _ in channels]                  # flits that came, by number
        self.freed = [0 for _ in channels]
        self.news = deque()                                 # channels whose status is to be told

    def room(self, vc):
        """Whether a flit can be sent."""
        return self.next[vc] - self.base[vc] < self.slots

    def put(self, vc, flit):
        number = self.next[vc]
        self.kept[vc][number] = flit
        self.due[vc].append(number)
        self.next[vc] += 1

    def take(self, vc):
        """The next flit of a channel, or None."""
        flit = self.here[vc].pop(self.freed[vc], None)
        if flit is not None:
            self.freed[vc] += 1
            self._tell(vc)
        return flit

    def expire(self):
        """What is not known to have arrived is sent again; what has not changed is told again."""
        for vc in range(self.vcs):
            self.due[vc] = deque(sorted(self.kept[vc]))
            self._tell(vc)

    def frame(self, burst):
        """Bytes of a frame with at most `burst` flits; b"" if there is nothing to say."""
        if not self.up:
            return encode(Frame(hello=True, heard=self.peer is not None, seq=self.session, freed=self.peer or 0),
                          self.slots)
        vc = max(range(self.vcs), key=lambda vc: len(self.due[vc]))
        if not self.due[vc] and not self.news:
            return b""
        due, numbers = self.due[vc], []
        while due and len(numbers) < burst and (not numbers or due[0] == numbers[-1] + 1):
            numbers.append(due.popleft())
        status = self.news.popleft() if self.news else vc
        arrived = sum(1 << number % self.slots for number in self.here[status])
        return encode(Frame(
            vc=vc, seq=numbers[0] & MASK if numbers else 0, flits=[self.kept[vc][number] for number in numbers],
            status_vc=status, freed=self.freed[status] & MASK, map=arrived), self.slots, (self.session, self.peer))

    def receive(self, stuffed):
        """Take what came between two flags."""
        frame = decode(stuffed, self.size, self.slots, (self.peer or 0, self.session))
        if frame is None or not frame.hello and self.peer is None:
            return
        if frame.hello:
            self._greet(frame.seq, frame.heard, frame.freed)
            return
        self.up = True
        self._learn(frame.status_vc, frame.freed, frame.map)
        for n, flit in enumerate(frame.flits):
            ahead = (frame.seq + n - self.freed[frame.vc]) & MASK
            if ahead < self.slots:                          # else it was here before
                self.here[frame.vc].setdefault(self.freed[frame.vc] + ahead, flit)
        if frame.flits:
            self._tell(frame.vc)

    def _greet(self, peer, heard, me):
        knows = heard and me == self.session
        if self.up and peer == self.peer and (knows or not heard):
            self._tell(0)                                   # any frame tells it that I am up
            return
        if self.up:                                         # it was reset, or takes me for another
            self.session, self.up = self.session + 1 & MASK, False
            self.error = self.error or Error.RESTART
            self._begin()
            knows = False
        self.peer = peer
        self.up = knows

    def _learn(self, vc, freed, arrived):
        ahead = (freed - self.base[vc]) & MASK
        if ahead > self.next[vc] - self.base[vc]:           # out of date
            return
        self.base[vc] += ahead
        for number in list(self.kept[vc]):
            if number < self.base[vc] or arrived >> number % self.slots & 1:
                del self.kept[vc][number]
                if number in self.due[vc]:
                    self.due[vc].remove(number)

    def _tell(self, vc):
        if vc not in self.news:
            self.news.append(vc)
