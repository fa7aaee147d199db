# SPDX-License-Identifier: Apache-2.0
"""Verilog out of Amaranth, one module per distinct block.

Left alone, Amaranth writes one Verilog module per *instance* and prunes each port list to the nets
that happen to cross it, so a 16x16 array becomes 256 modules of nine different shapes. A `Block` is
a component that keeps its identity: it is elaborated once per set of parameters, has every port of
its signature, and is instantiated by name wherever it is used.
"""

import gc
import hashlib
import inspect
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Const, Instance, ResetSignal, Shape, Value
from amaranth.hdl._ir import PortDirection  # `rtlil.convert` asks for it, nothing public has it
from amaranth.lib import data, wiring

__all__ = ["LINT_WAIVERS", "Block", "Library", "Verilog", "verilog"]

# Verilator's warnings that Amaranth's Verilog raises by its nature, and why each is harmless.
LINT_WAIVERS = {
    "WIDTH": "Amaranth has already extended or cut each operand; the text relies on Verilog doing the same",
    "CASEINCOMPLETE": "a case without default keeps the value assigned above it",
    "UNUSEDSIGNAL": "ports and named nets are kept for waveforms, read or not",
    "DECLFILENAME": "all modules may share one file",
}


class Block(wiring.Component):
    """A component that becomes exactly one Verilog module, however often it is instantiated.

    Two blocks are the same module when their class and constructor arguments print the same, so
    arguments must be values (numbers, shapes, frozen dataclasses), never live objects.
    """

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls, src_loc_at=1)
        # A second copy of a block is never elaborated, nor are children that it made: no cause for a warning.
        self._MustUse__silence = True
        bound = cls._constructor.bind(self, *args, **kwargs)
        bound.apply_defaults()
        self._args = {k: v for k, v in list(bound.arguments.items())[1:] if v not in ((), {})}
        for name, value in self._args.items():
            if " at 0x" in repr(value):
                raise TypeError(f"{cls.__name__}: argument {name}={value!r} has no stable repr, so "
                                f"equal blocks cannot be recognised; pass a plain value")
        return self

    def __init_subclass__(cls):
        super().__init_subclass__()
        cls._constructor = inspect.signature(cls.__init__)
        if "elaborate" in cls.__dict__:
            body = cls.elaborate

            def elaborate(self, platform):
                if isinstance(platform, Library) and platform.current is not self:
                    return platform.instance(self)
                return body(self, platform)
            cls.elaborate = elaborate

    @property
    def name(self):
        """Verilog module name: the class in snake case and its arguments, or a digest of them.

        A subclass may override it; blocks of equal names must then be equal.
        """
        args = "_".join(v.__name__ if isinstance(v, type) else str(v) if isinstance(v, str) else repr(v)
                        for v in self._args.values())
        slug = re.sub(r"[\W_]+", "_", re.sub(r"-(?=\d)", "m", args)).strip("_")
        if len(slug) > 24:
            slug = hashlib.sha256(args.encode()).hexdigest()[:8]
        return f"{self.stem}_{slug}" if slug else self.stem

    @property
    def stem(self):
        """The class's name in snake case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def identity(self):
        """What makes two blocks the same module: by default class and arguments.

        A subclass that overrides it must override `name` to match.
        """
        return type(self), repr(self._args)

    @property
    def origin(self):
        """The Python expression that makes this block, as the comment above its module."""
        args = ", ".join(f"{name}={value!r}" for name, value in self._args.items())
        return f"{type(self).__module__}.{type(self).__qualname__}({args})"


class Library:
    """The Amaranth platform under which blocks are separate modules.

    Pass it to nothing yourself; `Verilog` does. Being the platform, it is also the place for
    Amaranth's own hooks, such as `get_memory()` for an ASIC's SRAM macros.
    """

    def __init__(self, progress=None):
        self.progress = progress or (lambda name: None)
        self.modules = {}      # name -> RTLIL, leaves first
        self.blocks = {}       # name -> a block that it was made from
        self.ports = {}        # name -> names of its ports: clocks, resets, then by signature
        self.current = None

    def add(self, block):
        """Convert `block` and all blocks below it unless they are here already; return its name."""
        name, known = block.name, self.blocks.get(block.name)
        if known is None:
            self.blocks[name] = block
            outer, self.current = self.current, block
            signature = {port: (value, PortDirection.Input if flow is wiring.In else PortDirection.Output)
                         for port, flow, value in _ports(block)}
            text = rtlil.convert(block, name=name, platform=self, ports=signature, emit_src=False)
            self.current = outer
            self.modules[name], self.ports[name] = _tidy(text, name, list(signature))
            self.progress(name)
        elif known.identity != block.identity:
            raise ValueError(f"{name!r} would name two different modules: {known.origin} and {block.origin}")
        return name

    def instance(self, block):
        """The Amaranth `Instance` that stands for `block` in the block that contains it."""
        name = self.add(block)
        flows = {port: ("i" if flow is wiring.In else "o", value) for port, flow, value in _ports(block)}
        ports = {}
        for port in self.ports[name]:
            if port in flows:
                flow, value = flows[port]
                ports[f"{flow}_{port}"] = value
            else:              # not in the signature: the clock or reset of a domain
                domain, kind = port.rsplit("_", 1) if "_" in port else ("sync", port)
                ports[f"i_{port}"] = (ClockSignal if kind == "clk" else ResetSignal)(domain)
        return Instance(name, **ports)


class Verilog:
    """SystemVerilog of some blocks and of every block below them.

    Registers and memories have no initial values: hardware wakes up with random ones, so whatever
    matters must be reset. (Constant tables keep their contents.)

    Parameters
    ----------
    blocks : Block
        The top modules.
    progress : callable
        Called with each module's name when Amaranth is done with it.

    Attributes
    ----------
    tops : list of str
        Module names of `blocks`.
    modules : dict of str to str
        Text of each module by name, leaves first.
    ports : dict of str to list of dict
        Ports of each block: `name`, `direction`, `width` and, where they apply, `signed`, `stream`
        (the stream it belongs to), `fields` (offset and width of each field of a structure).
    """

    def __init__(self, *blocks, progress=None):
        library = Library(progress)
        gc.disable()           # a netlist is millions of small objects and no garbage: a third of the time
        try:
            self.tops = list(dict.fromkeys(library.add(block) for block in blocks))
        finally:
            gc.enable()
        names = [name for text in library.modules.values() for name in reversed(_modules(text))]
        text = _yosys("".join(library.modules.values()))
        parts = {part[1]: f"{part[0]}\n" for part in re.finditer(r"(?ms)^module (\w+).*?^endmodule$", text)}
        self.modules = {name: parts[name] for name in names}
        self.ports = {}
        for name, block in library.blocks.items():
            self.modules[name] = f"// {block.origin}\n{self.modules[name]}"
            self.ports[name] = _describe(block, library.ports[name])

    @property
    def text(self):
        """All modules as one text."""
        return "\n".join(self.modules.values())

    def write(self, folder, name=None, *, split=True):
        """Write the modules and the files that describe them to tools.

        Writes `<module>.sv` each, or one `<name>.sv` unless `split`; `ports.json`, `<name>.f` (a file
        list, leaves first) and `<name>.core` (FuseSoC, CAPI=2; targets default, lint, sim, synth).
        A file that would not change is left alone.

        Parameters
        ----------
        folder : path
            Made when missing.
        name : str
            Name of the set; by default that of the first top.

        Returns
        -------
        list of Path
            Everything that belongs to the set.
        """
        name = name or self.tops[0]
        notice = "// SPDX-License-Identifier: Apache-2.0 WITH SHL-2.1\n// Generated by Poblano.\n\n"
        sources = {f"{module}.sv": notice + text for module, text in self.modules.items()}
        if not split:
            sources = {f"{name}.sv": notice + self.text}
        files = sources | {
            "ports.json": json.dumps({top: self.ports[top] for top in self.tops}, indent=1) + "\n",
            f"{name}.f": "".join(f"{source}\n" for source in sources),
            f"{name}.core": _core(name, self.tops[0], list(sources)),
        }
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            if not (folder / file).exists() or (folder / file).read_text() != text:
                (folder / file).write_text(text)
        return [folder / file for file in files]


def verilog(block):
    """SystemVerilog text of `block` and every block below it; the top module is `block.name`."""
    return Verilog(block).text


def _ports(block):
    """Flattened (name, flow, value) ports; a stream's tied-off `valid` or `ready` is not a port."""
    for path, member, value in block.signature.flatten(block):
        value = Value.cast(value)
        if not isinstance(value, Const):
            yield "__".join(map(str, path)), member.flow, value


def _describe(block, names):
    """What `Verilog.ports` says about `block`, whose module has the ports `names`."""
    members = {"__".join(map(str, path)): member for path, member, _ in block.signature.flatten(block)}
    streams = set(_streams(block.signature))
    ports = []
    for name in names:
        if name not in members:            # a clock or a reset
            ports.append({"name": name, "direction": "input", "width": 1})
            continue
        member = members[name]
        shape = Shape.cast(member.shape)
        port = {"name": name, "direction": "input" if member.flow is wiring.In else "output",
                "width": shape.width}
        if shape.signed:
            port["signed"] = True
        if name.rpartition("__")[0] in streams:
            port["stream"] = name.rpartition("__")[0]
        if isinstance(member.shape, data.Layout):
            port["fields"] = {str(key): {"offset": field.offset, "width": field.width}
                              for key, field in member.shape}
        ports.append(port)
    return ports


def _streams(signature, path=()):
    """Flattened names of the streams in a signature."""
    for name, member in signature.members.items():
        if member.is_signature:
            for index in itertools.product(*map(range, member.dimensions)):
                inner = (*path, name, *map(str, index))
                if hasattr(member.signature, "always_ready"):
                    yield "__".join(inner)
                else:
                    yield from _streams(member.signature, inner)


def _modules(text):
    return re.findall(r"(?m)^module \\(\S+)$", text)


def _tidy(text, name, signature):
    """RTLIL that reads well as Verilog, and the ports of its top module `name`.

    Ports go in the order of the signature, clocks first, not as Amaranth met them. Components that
    are not blocks are modules `parent.child`, which Verilog must escape: they become `parent__child`.
    Names of elements and fields (`a[3].sign`) that nothing uses are left out.
    """
    text = text.replace("attribute \\top 1\n", "")    # there may be several tops
    for inner in _modules(text):
        plain = re.sub(r"\W", "_", inner.replace(".", "__"))
        if plain != inner:
            text = re.sub(rf"(?m)^(module |  cell )\\{re.escape(inner)}(?=\s)", rf"\1\\{plain}", text)

    mentions = Counter(re.findall(r"\\\w*[\[.$]\S*", text))
    aliases = {alias for alias in re.findall(r"(?m)^connect (\\\S+) [^\[]", text) if mentions[alias] == 2}
    definition = re.compile(r"(?m)^(?:(?:  attribute .*\n)*  wire .* (\\\S+)\n\n|connect (\\\S+) .*\n)")
    text = definition.sub(lambda match: "" if (match[1] or match[2]) in aliases else match[0], text)

    text = re.sub(r"\\\$?(\w+)\$(\d+)(?!\S)", r"\\\1_\2", text)   # equal names, as Amaranth numbers them
    text = re.sub(r"\\\$(?=\w+\s)", r"\\", text)                   # signals without a name of their own

    start = text.index(f"module \\{name}\n")
    end = text.index("\nend\n", start)
    port = re.compile(r"(?m)^(  wire width \d+ (?:in|out)put )\d+( .*)?( \\(\w+))$")
    found = {match[4] for match in port.finditer(text, start, end)}
    order = sorted(found - set(signature)) + [each for each in signature if each in found]
    index = {each: n for n, each in enumerate(order, 1)}
    body = port.sub(lambda match: f"{match[1]}{index[match[4]]}{match[2] or ''}{match[3]}", text[start:end])
    return text[:start] + body + text[end:], order


def _yosys(design):
    """Verilog text of an RTLIL design."""
    script = "\n".join([
        "read_rtlil design.il", "hierarchy -check",
        "delete ram_*/t:$meminit_v2", "proc -nomux -norom", "setattr -unset init w:*",
        "memory_collect", "write_verilog -sv -noattr design.sv"])
    # A child process: Yosys ends its process on an error, and numbers nets by what it did before.
    python = "from pyosys import libyosys as ys; ys.run_pass('script script.ys', ys.Design())"
    program = os.environ.get("YOSYS")
    command = [*shlex.split(program), "-q", "script.ys"] if program else [sys.executable, "-c", python]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "design.il").write_text(design)
        (folder / "script.ys").write_text(script)
        done = subprocess.run(command, cwd=folder, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode or not (folder / "design.sv").exists():
            raise RuntimeError(f"{program or 'pyosys'} failed:\n{done.stdout.strip()[-2000:]}")
        return (folder / "design.sv").read_text()


def _core(name, top, sources):
    """A FuseSoC core description."""
    files = "".join(f"      - {source}\n" for source in sources)
    waivers = ", ".join(f"-Wno-{waiver}" for waiver in LINT_WAIVERS)
    return f"""\
CAPI=2:
name: poblano:generated:{name}:0.1.0
description: Generated by Poblano
filesets:
  rtl:
    files:
{files}    file_type: systemVerilogSource
targets:
  default: &default
    filesets: [rtl]
    toplevel: {top}
  lint:
    <<: *default
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall, {waivers}]
  sim:
    <<: *default
    flow: sim
    flow_options:
      tool: verilator
      mode: cc
      exe: "false"
      verilator_options: [--assert, {waivers}]
  synth:
    <<: *default
    flow: trellis
    flow_options:
      pnr: none
"""
