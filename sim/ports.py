# SPDX-License-Identifier: Apache-2.0
"""What surrounds an engine in a bench that is one coroutine: its memory, and its ports a cycle at a time."""

__all__ = ["Memory", "Port", "Watched", "pack", "unpack"]


class Memory:
    """Bytes, handed out piece after piece."""

    def __init__(self):
        self.data = bytearray(64)

    def place(self, content):
        """Append `content`; return its address."""
        address = len(self.data)
        self.data += content
        return address

    def beat(self, address, size):
        return int.from_bytes(self.data[address:address + size], "little")


class Port:
    """One stream, driven or taken a cycle at a time; counts how often either side made the other wait."""

    def __init__(self, dut, name, source):
        self.name, self.source = name, source
        self.payload, self.valid, self.ready = (
            getattr(dut, f"{name}__{part}") for part in ("payload", "valid", "ready"))
        self.driven, self.taking, self.value = None, False, None    # payload on offer; whether we are ready
        self.offering = False
        (self.valid if source else self.ready).value = 0

    def sample(self, seen):
        """Whether a transfer happened at the edge; its payload is in `value`."""
        if self.source:
            valid, ready = self.driven is not None, bool(int(self.ready.value))
        else:
            valid, ready = bool(int(self.valid.value)), self.taking
        if valid != ready:
            seen[self.name, "held back" if valid else "starved"] += 1
        if not (valid and ready):
            return False
        if self.source:
            self.driven = None
        else:
            self.value = int(self.payload.value)
        return True

    def drive(self, payload, stall, random):
        """Offer `payload` (None: nothing), unless an earlier one is still waiting."""
        if self.driven is None and payload is not None and not (stall and random() < stall):
            self.driven = payload
            self.payload.value = payload
        if self.offering != (self.driven is not None):
            self.offering = not self.offering
            self.valid.value = self.offering

    def take(self, stall, random):
        """Be ready or not."""
        taking = not (stall and random() < stall)
        if taking != self.taking:
            self.ready.value = self.taking = taking


def pack(layout, fields):
    """A struct's fields as one integer."""
    return sum(int(value) << layout[name].offset for name, value in fields.items())


def unpack(layout, value):
    """The fields of a struct."""
    return {name: value >> field.offset & (1 << field.width) - 1 for name, field in layout}


class Watched(Port):
    """A port whose payload must not change while it waits."""

    waiting = None

    def sample(self, seen):
        moved = super().sample(seen)
        item = int(self.payload.value) if int(self.valid.value) else None
        assert self.waiting in (None, item), f"stream {self.name} changed a waiting item"
        self.waiting = None if moved else item
        return moved
