# SPDX-License-Identifier: Apache-2.0
"""Registers of a tile's host port: the one description that hardware, C header and page are made from."""

from dataclasses import dataclass
from enum import Enum, IntEnum

from golden.isa import FORMS, Engine
from golden.isa import REGISTERS as PRESETS

__all__ = ["ACCESS", "COUNTERS", "ENGINES", "EVENTS", "IDENTITY", "REGISTERS", "Access", "Field", "Register", "State",
           "header", "page"]

IDENTITY = 0x504F4231       # "POB1"


ENGINES = tuple(engine.name.lower() for engine in Engine if FORMS[engine] and engine is not Engine.CONTROL)
COUNTERS = (
    "cycles",               # in which a program runs
    *(f"{engine}_busy" for engine in ENGINES),
    *(f"{engine}_waits_for_{other}" for engine in ENGINES for other in ENGINES),
    *(f"{master}_beats_read" for master in ("instructions", "kv", "load", "weights")),
    *(f"{master}_beats_written" for master in ("kv", "store")),
    "weights_full",         # no room for weights that could be read ahead
    "weights_empty",        # weights are asked for that are not there yet
)
"""What is counted, in cycles or beats, in the order of the counters."""

EVENTS = (*COUNTERS, *(f"{engine}_{what}" for what in ("begins", "ends") for engine in ENGINES))
"""What a tile shows of each cycle: what is counted, and instructions of engines that begin and end."""


class State(IntEnum):
    """What a tile does, as its status says."""

    IDLE = 0
    LOADING = 1     # reads and checks an image
    RUNNING = 2
    DRAINING = 3    # has given up, and waits for what is under way
    ERROR = 4       # until it is cleared


class Access(Enum):
    """What a field does."""

    READ = "ro"             # the tile says it
    WRITE = "rw"            # the host sets it, and reads it back
    PULSE = "w1"            # a 1 does something, once; reads as 0


ACCESS = {Access.READ: "read only", Access.WRITE: "read and write", Access.PULSE: "write 1 to act"}


@dataclass(frozen=True)
class Field:
    """Some bits of a register, from bit `at` on."""

    name: str
    at: int
    bits: int
    access: Access
    text: str


@dataclass(frozen=True)
class Register:
    """A word of 32 bits at a byte address."""

    name: str
    address: int
    fields: tuple
    text: str


def _register(name, address, text, *fields):
    return Register(name, address, fields, text)


def _whole(name, address, access, text, field="value"):
    return _register(name, address, text, Field(field, 0, 32, access, text))


READ, WRITE, PULSE = Access.READ, Access.WRITE, Access.PULSE

REGISTERS = (
    _whole("identity", 0x00, READ, f"{IDENTITY:#x}"),
    _register(
        "control", 0x04, "what the host asks for",
        Field("start", 0, 1, PULSE, "run the program at `address`; nothing while one runs or an error stands"),
        Field("stop", 1, 1, PULSE, "end the program: nothing new begins"),
        Field("clear", 2, 1, PULSE, "forget the error and the interrupt"),
        Field("zero", 3, 1, PULSE, "all counters become 0"),
        Field("reset", 4, 1, PULSE, "give up what runs and reset all engines; the KV cache forgets its sequences"),
        Field("freeze", 8, 1, WRITE, "counters stand still"),
        Field("interrupt", 9, 1, WRITE, "the interrupt line is up with `done`, and while the state is error")),
    _register(
        "status", 0x08, "what the tile does",
        Field("state", 0, 3, READ, "0 idle, 1 loading, 2 running, 3 draining, 4 error"),
        Field("done", 3, 1, READ, "a program has ended since `clear`"),
        Field("error", 4, 1, READ, "an error stands"),
        Field("dead", 5, 1, READ, "the memory does not answer; until reset"),
        Field("pc", 16, 16, READ, "the instruction that is dispatched next")),
    _register(
        "error", 0x0C, "the first error since `clear`",
        Field("code", 0, 8, READ, "a `golden.isa.Error`"),
        Field("engine", 8, 8, READ, "a `golden.isa.Engine`"),
        Field("pc", 16, 16, READ, "the instruction")),
    _whole("detail", 0x10, READ, "what the engine says of it"),
    _whole("address", 0x20, WRITE, "where the program begins, in bytes"),
    _register("count", 0x24, "its instructions", Field("value", 0, 16, WRITE, "with END")),
    _whole("kv_base", 0x28, WRITE, "where the pool of the KV cache begins, in pages of 4 KiB"),
    _register("counter", 0x2C, "which counter is read", Field("index", 0, 8, WRITE, "a place in the list of counters")),
    _whole("counter_low", 0x30, READ, "its lower 32 bits"),
    _register("counter_high", 0x34, "its upper bits", Field("value", 0, 16, READ, "its upper 16 bits")),
    _whole("kv_host_base", 0x38, WRITE, "where its slots for swapped sequences begin, likewise; 0: there are none"),
    *(_whole(f"register{n}", 0x40 + 4 * n, WRITE, f"what register {n} holds when a program begins")
      for n in range(1, PRESETS)),
)


def header(name="POBLANO"):
    """A C header: addresses, and place and mask of each field."""
    lines = ["/* SPDX-License-Identifier: Apache-2.0 */", "/* Registers of a tile's host port; generated. */",
             f"#ifndef {name}_H", f"#define {name}_H", ""]
    for each in REGISTERS:
        own = f"{name}_{each.name.upper()}"
        lines.append(f"#define {own} {each.address:#04x} /* {each.text} */")
        for field in each.fields:
            if field.bits < 32:
                lines.append(f"#define {own}_{field.name.upper()}_SHIFT {field.at}")
                lines.append(f"#define {own}_{field.name.upper()}_MASK {(1 << field.bits) - 1 << field.at:#x}")
    return "\n".join([*lines, "", "#endif", ""])


def page():
    """The same as a page of HTML."""
    rows = "".join(
        f"<tr><td>{each.address:#04x}</td><td>{each.name}</td><td>{field.at + field.bits - 1}:{field.at}</td>"
        f"<td>{field.name}</td><td>{ACCESS[field.access]}</td><td>{field.text}</td></tr>\n"
        for each in REGISTERS for field in each.fields)
    return ("<!doctype html><meta charset=utf-8><title>Registers</title>\n"
            "<style>body{font-family:sans-serif}td,th{padding:.2em .8em;text-align:left}</style>\n"
            "<h1>Registers of a tile's host port</h1>\n<table><tr><th>address<th>register<th>bits<th>field<th>access"
            f"<th>meaning</tr>\n{rows}</table>\n")
