# SPDX-License-Identifier: Apache-2.0
"""Verilog text as a tree of modules, and the parts of it that are worth synthesizing alone."""

import fnmatch
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Hierarchy", "Module", "among"]

_MODULE = re.compile(r"^\s*module\s+(?P<name>[\w$]+).*?\bendmodule\b", re.M | re.S)
_INSTANCE = re.compile(r"^\s*([A-Za-z_][\w$]*)\s+(?:#\s*\(.*?\)\s*)?(\\\S+\s+|[A-Za-z_][\w$]*\s*)\(", re.M)
_PORT = re.compile(r"^\s*(?:input|output)\b[^;)]*;", re.M)
_INPUT = re.compile(r"\binput\s+(?:wire\s+|logic\s+)?(?:signed\s+)?(?:\[(\d+):0\]\s*)?(\w+)")
_RAM = re.compile(r"ram_(\d+)x(\d+)(_\d+)?")


def among(name, patterns):
    """Whether a name matches one of some shell patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Module:
    """One Verilog module.

    Attributes
    ----------
    name, text : str
    instances : dict of str to str
        The module of each instance, of those of the same text.
    """

    name: str
    text: str
    instances: dict

    @cached_property
    def children(self):
        """Instances of each module: Counter."""
        return Counter(self.instances.values())

    @property
    def clocked(self):
        return "posedge" in self.text

    @property
    def bits(self):
        """Bits of a memory, by its name as `hw.ram.Ram` gives it; 0 of anything else."""
        size = _RAM.fullmatch(self.name)
        return int(size[1]) * int(size[2]) if size else 0

    @property
    def ports(self):
        """The module's text as far as it declares ports."""
        end = self.text.index(";") + 1
        return "\n".join([self.text[:end], *_PORT.findall(self.text[end:])])

    @property
    def black_box(self):
        """The module's ports without its contents."""
        return f"(* blackbox *)\n{self.ports}\nendmodule\n"

    @property
    def fence(self):
        """A Yosys rule that puts a buffer before each bit of the inputs, but for the clock."""
        names = re.findall(r"(\w+)\s*[,)]", self.ports[self.ports.index("("):self.ports.index(";")])
        inputs = {name: int(top or 0) + 1 for top, name in _INPUT.findall(self.ports)
                  if name in names and name != "clk"}
        lines = [f'(* techmap_celltype = "{self.name}" *)', re.sub(r"module\s+", "module fence_", self.ports, count=1)]
        for name, width in inputs.items():
            bits = [name] if width == 1 else [f"{name}[{n}]" for n in range(width)]
            lines += [f"wire [{width - 1}:0] near_{name};", *(
                f"\\$_BUF_ {name}_{n} (.A({bit}), .Y(near_{name}[{n}]));" for n, bit in enumerate(bits))]
        given = ", ".join(f".{name}(near_{name})" if name in inputs else f".{name}({name})" for name in names)
        return "\n".join([*lines, f"{self.name} _TECHMAP_REPLACE_ ({given});", "endmodule\n"])


class Hierarchy:
    """The modules below `top`, and how synthesis divides them.

    A *unit* is synthesized alone and once: the top, every clocked module that is instantiated in more
    than one place, every memory, and whatever `keep` names. All others dissolve in what uses them.

    Parameters
    ----------
    text : str
        Verilog of all modules.
    top : str
    keep : iterable of str
        Shell patterns of further module names.
    whole : bool
        Only these, memories and the top are units.

    Attributes
    ----------
    modules : dict of str to Module
        Those that `top` reaches, leaves first.
    counts : Counter
        Copies of each in one `top`.
    units : list of str
        Leaves first, `top` last.
    """

    def __init__(self, text, top, keep=(), whole=False):
        texts = {found["name"]: found[0] for found in _MODULE.finditer(text)}
        if top not in texts:
            raise ValueError(f"synthesis: top must be one of the modules {', '.join(texts)}, not {top!r}")
        found = {name: Module(name, body, {instance.strip(" \\"): module for module, instance in _INSTANCE.findall(body)
                                           if module in texts}) for name, body in texts.items()}
        self.top, self.modules = top, {}
        self._visit(found, top)
        self.counts = Counter({top: 1})
        for module in reversed(self.modules.values()):
            for child, count in module.children.items():
                self.counts[child] += count * self.counts[module.name]
        places = sum((module.children for module in self.modules.values()), Counter())
        self.units = [name for name, module in self.modules.items() if name == top or module.bits
                      or (not whole and places[name] > 1 and self._clocked(name))
                      or among(name, keep)]

    def _visit(self, found, name):
        if name not in self.modules:
            for child in found[name].children:
                self._visit(found, child)
            self.modules[name] = found[name]

    def _clocked(self, name):
        module = self.modules[name]
        return module.clocked or any(map(self._clocked, module.children))

    def parts(self, unit):
        """(dissolved, kept): the modules within `unit`, itself first, and a Counter of the units it uses."""
        dissolved, kept = {unit: 1}, Counter()
        for name in reversed(self.modules):
            if name in dissolved:
                for child, count in self.modules[name].children.items():
                    target = kept if child in self.units else dissolved
                    target[child] = target.get(child, 0) + count * dissolved[name]
        return list(dissolved), kept

    def outermost(self, patterns):
        """Modules below the top whose names match, and that are in no other of these."""
        found = {}

        def visit(name):
            for child in self.modules[name].children:
                if among(child, patterns):
                    found[child] = True
                else:
                    visit(child)

        visit(self.top)
        return list(found)

    def around(self, parts):
        """Verilog of all that is not in the modules `parts`, with black boxes for these."""
        found = {}

        def visit(name):
            found[name] = self.modules[name].black_box if name in parts else self.modules[name].text
            for child in self.modules[name].children if name not in parts else ():
                if child not in found:
                    visit(child)

        visit(self.top)
        return "\n\n".join(found.values())

    def places(self):
        """The module at each place: names of instances from the top on, apart by points."""
        found = {}

        def visit(name, path):
            for instance, child in self.modules[name].instances.items():
                found[".".join((*path, instance))] = child
                visit(child, (*path, instance))

        visit(self.top, ())
        return found

    def fences(self, unit):
        """The `fence` of each unit that `unit` uses, but for memories."""
        return "\n\n".join(self.modules[name].fence for name in sorted(self.parts(unit)[1])
                           if not self.modules[name].bits)

    def source(self, unit):
        """Verilog of `unit` and what dissolves in it, with black boxes for the units it uses."""
        dissolved, kept = self.parts(unit)
        return "\n\n".join([self.modules[name].text for name in dissolved]
                           + [self.modules[name].black_box for name in sorted(kept)]) + "\n"
