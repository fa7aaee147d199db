# SPDX-License-Identifier: Apache-2.0
"""Static timing of a mapped netlist: cell delays by slew and load, clk-q and setup included, no wires.

The clock is ideal. Inputs arrive like the outputs of a plain flop that drives 24 NAND2 inputs, and
outputs end in the setup of such a flop, so that a module alone shows the period that it allows a
chip of its likes. A memory counts as such a boundary too.

Each arc's delay is looked up at the worst slew of its input, as sign-off tools do before wires.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Netlist", "Path", "Step", "flatten", "launch", "overhead", "period", "setup", "timing"]

_FALL, _RISE = 0, 1
_DELAY = {_FALL: ("cell_fall", "fall_transition"), _RISE: ("cell_rise", "rise_transition")}
_CONSTRAINT = {_FALL: "fall_constraint", _RISE: "rise_constraint"}


@dataclass
class Netlist:
    """A flat netlist; nets are numbers.

    Attributes
    ----------
    cells : list of (str, Cell, dict)
        Instance, library cell, pin -> net.
    inputs, outputs : list of int
        Nets that enter and leave, at ports and at memories.
    """

    cells: list
    inputs: list
    outputs: list


@dataclass(frozen=True)
class Step:
    """A point of a path: the output pin of a cell rises or falls at `arrival` ps."""

    instance: str
    cell: str
    pin: str
    edge: str
    arrival: float


@dataclass(frozen=True)
class Path:
    """The worst path of a kind ("reg-reg", "in-reg", "reg-out", "in-out"): its length, setup included."""

    kind: str
    length: float           # ps
    steps: tuple


def flatten(netlists, top, library):
    """Join the netlists of units into one.

    Parameters
    ----------
    netlists : dict of str to dict
        Modules in Yosys' JSON form; cells that are neither here nor in the library are boundaries.
    top : str
    library : Library

    Returns
    -------
    Netlist
    """
    flat = Netlist([], [], [])
    numbers = iter(range(1 << 60))

    def visit(name, prefix, outer):
        module, nets = netlists[name], dict(outer)

        def number(bits):
            return [nets.setdefault(bit, None if isinstance(bit, str) else next(numbers))
                    if bit not in nets else nets[bit] for bit in bits]
        for instance, cell in module["cells"].items():
            kind, pins = cell["type"], {pin: number(bits) for pin, bits in cell["connections"].items()}
            if kind in library.cells:
                flat.cells.append((prefix + instance, library.cells[kind],
                                   {pin: bits[0] for pin, bits in pins.items() if bits}))
            elif kind in netlists:
                ports = netlists[kind]["ports"]
                visit(kind, f"{prefix}{instance}.",
                      {inner: bit for port, bits in pins.items()
                       for inner, bit in zip(ports[port]["bits"], bits, strict=True)})
            elif kind != "$scopeinfo":
                for pin, bits in pins.items():
                    ends = flat.inputs if cell["port_directions"][pin] == "output" else flat.outputs
                    ends.extend(bits)
        return number

    number = visit(top, "", {})
    for port in netlists[top]["ports"].values():
        ends = flat.inputs if port["direction"] == "input" else flat.outputs
        ends.extend(number(port["bits"]))
    flat.inputs = [net for net in flat.inputs if net is not None]
    flat.outputs = [net for net in flat.outputs if net is not None]
    return flat


def launch(library):
    """(arrival, slew, load) in ps and fF that stand for the outside world.

    Inputs come from a plain flop that drives 24 NAND2 inputs, as a register shared by several
    copies of a block does; an output has to drive four.
    """
    nand2 = max(library.nand2.pins[pin].capacitance for pin in library.nand2.inputs)
    load = 24 * nand2
    tables = [arc.tables for pin in library.flop.outputs for arc in library.flop.pins[pin].arcs]
    arrival = max(t[delay](0, load) for t in tables for delay, _ in _DELAY.values() if delay in t)
    slew = max(t[slew](0, load) for t in tables for _, slew in _DELAY.values() if slew in t)
    return arrival, slew, 4 * nand2


def setup(library, slew):
    """Setup time in ps of the plain flop for data of this slew."""
    return max(table(slew, 0) for pin in library.flop.inputs for arc in library.flop.pins[pin].arcs
               if arc.kind.startswith("setup") for table in arc.tables.values())


def overhead(library):
    """What a period spends on clk-q and setup, in ps."""
    arrival, slew, _ = launch(library)
    return arrival + setup(library, slew)


def period(netlists, top, library):
    """Length in ps of the longest path; 0 when there is none. Parameters as for `flatten`."""
    paths = timing(flatten(netlists, top, library), library)
    return paths[0].length if paths else 0.0


class _Tables:
    """Many tables as one array, to look up many at once."""

    def __init__(self):
        self.index, self.tables = {}, []

    def add(self, table):
        if id(table) not in self.index:
            self.index[id(table)] = len(self.tables)
            self.tables.append(table)
        return self.index[id(table)]

    def freeze(self):
        count = len(self.tables)
        size = max([2] + [n for table in self.tables for n in table.values.shape])
        self.slew, self.load = np.full((2, count, size), np.inf)
        self.values = np.zeros((count, size, size))
        self.sizes = np.zeros((2, count), int)
        for n, table in enumerate(self.tables):
            slew, load, values = table.slew, table.load, table.values
            if len(slew) == 1:
                slew, values = np.append(slew, slew + 1), np.repeat(values, 2, 0)
            if len(load) == 1:
                load, values = np.append(load, load + 1), np.repeat(values, 2, 1)
            self.slew[n, :len(slew)], self.load[n, :len(load)] = slew, load
            self.values[n, :len(slew), :len(load)] = values
            self.sizes[:, n] = values.shape
        return self

    def __call__(self, n, slew, load):
        i, u = self._place(self.slew[n], self.sizes[0, n], slew)
        j, v = self._place(self.load[n], self.sizes[1, n], load)
        t = self.values
        return ((t[n, i, j] * (1 - u) + t[n, i + 1, j] * u) * (1 - v)
                + (t[n, i, j + 1] * (1 - u) + t[n, i + 1, j + 1] * u) * v)

    @staticmethod
    def _place(axes, sizes, x):
        i = np.clip((axes < x[:, None]).sum(1) - 1, 0, sizes - 2)
        rows = np.arange(len(x))
        low, high = axes[rows, i], axes[rows, i + 1]
        return i, (x - low) / (high - low)


class _Graph:
    """Timing arcs between nodes `2 * net + edge`, by levels."""

    def __init__(self, netlist, library):
        self.netlist = netlist
        self.arrival, self.slew, load = launch(library)
        nets = [net for _, _, pins in netlist.cells for net in pins.values() if net is not None]
        self.size = 2 * (max([*nets, *netlist.inputs, *netlist.outputs], default=0) + 1)
        self.loads = np.zeros(self.size // 2)
        for _, cell, pins in netlist.cells:
            for pin in cell.inputs:
                if pins.get(pin) is not None:
                    self.loads[pins[pin]] += cell.pins[pin].capacitance
        np.add.at(self.loads, netlist.outputs, load)

        self.tables = _Tables()
        starts, self.levels, self.ends = [], [], []
        for index, level in _levels(netlist.cells).items():
            _, cell, pins = netlist.cells[index]
            while len(self.levels) <= level:
                self.levels.append([])
            for output in cell.outputs:
                if pins.get(output) is not None:
                    arcs = starts if cell.register else self.levels[level]
                    arcs += self._arcs(index, cell, output, pins)
            if cell.register:
                self.ends += self._setups(index, cell, pins)
        self.starts = np.array(starts, int).reshape(-1, 5)
        self.levels = [np.array(arcs, int) for arcs in self.levels if arcs]
        self.tables.freeze()

    def _arcs(self, index, cell, output, pins):
        for arc in cell.pins[output].arcs:
            clocked = arc.kind in ("rising_edge", "falling_edge")
            net = pins.get(arc.source)
            if not (clocked or (arc.kind.startswith("combinational") and net is not None)):
                continue
            for edge, (delay, slew) in _DELAY.items():
                if delay in arc.tables:
                    sources = ([edge] if clocked or arc.sense == "positive_unate"
                               else [1 - edge] if arc.sense == "negative_unate" else [_FALL, _RISE])
                    for source in sources:
                        yield (0 if clocked else 2 * net + source, 2 * pins[output] + edge,
                               self.tables.add(arc.tables[delay]), self.tables.add(arc.tables[slew]), index)

    def _setups(self, index, cell, pins):
        for pin in cell.inputs:
            for arc in cell.pins[pin].arcs:
                if arc.kind.startswith("setup") and pins.get(pin) is not None:
                    for edge, name in _CONSTRAINT.items():
                        if name in arc.tables:
                            yield 2 * pins[pin] + edge, arc.tables[name], index

    def run(self, registers):
        """Arrivals, slews and the arc behind each, from all registers or from all inputs."""
        arrival, slew = np.full(self.size, -np.inf), np.zeros(self.size)
        cause = np.full((self.size, 2), -1)                 # source node, cell
        if registers:
            self._relax(self.starts, np.zeros(self.size), np.zeros(self.size), arrival, slew, cause)
            cause[:, 0] = -1
        else:
            for edge in (_FALL, _RISE):
                nodes = 2 * np.array(self.netlist.inputs, int) + edge
                arrival[nodes], slew[nodes] = self.arrival, self.slew
        for arcs in self.levels:
            self._relax(arcs, arrival, slew, arrival, slew, cause)
        return arrival, slew, cause

    def _relax(self, arcs, from_arrival, from_slew, arrival, slew, cause):
        arcs = arcs[np.isfinite(from_arrival[arcs[:, 0]])]
        if not len(arcs):
            return
        source, target, delays, slews, cells = arcs.T
        load = self.loads[target // 2]
        times = from_arrival[source] + self.tables(delays, from_slew[source], load)
        np.maximum.at(slew, target, self.tables(slews, from_slew[source], load))
        np.maximum.at(arrival, target, times)
        worst = times == arrival[target]
        cause[target[worst]] = np.stack([source, cells], 1)[worst]

    def steps(self, node, arrival, cause):
        path = []
        while node >= 0 and cause[node, 1] >= 0:
            instance, cell, pins = self.netlist.cells[cause[node, 1]]
            pin = next(pin for pin in cell.outputs if pins.get(pin) == node // 2)
            path.append(Step(instance, cell.name, pin, ("fall", "rise")[node % 2], float(arrival[node])))
            node = cause[node, 0]
        return tuple(reversed(path))


def _levels(cells):
    """Depth of each cell in logic; cells with state come at depth 0."""
    loads, drivers = {}, {}
    for index, (_, cell, pins) in enumerate(cells):
        if not cell.register:
            for pin in cell.inputs:
                loads.setdefault(pins.get(pin), []).append(index)
            drivers |= {pins[pin]: index for pin in cell.outputs if pins.get(pin) is not None}
    waiting = {index: sum(pins.get(pin) in drivers for pin in cell.inputs) if not cell.register else 0
               for index, (_, cell, pins) in enumerate(cells)}
    ready = [index for index, count in waiting.items() if not count]
    levels = dict.fromkeys(ready, 0)
    for index in ready:
        _, cell, pins = cells[index]
        for pin in () if cell.register else cell.outputs:
            for load in loads.get(pins.get(pin), ()) if pins.get(pin) is not None else ():
                levels[load] = max(levels.get(load, 0), levels[index] + 1)
                waiting[load] -= 1
                if not waiting[load]:
                    ready.append(load)
    if len(ready) < len(cells):
        stuck = next(cells[index][0] for index, count in waiting.items() if count)
        raise ValueError(f"timing: a combinational loop goes through {stuck}")
    return levels


def timing(netlist, library):
    """The worst path of each kind, longest first.

    Parameters
    ----------
    netlist : Netlist
    library : Library

    Returns
    -------
    list of Path
        At most four; the first one's length is the period that the netlist allows.
    """
    graph, paths = _Graph(netlist, library), []
    for begin, registers in (("reg", True), ("in", False)):
        arrival, slew, cause = graph.run(registers)
        ends = [(arrival[node] + table(slew[node], 0.0), node, "reg")
                for node, table, _ in graph.ends if np.isfinite(arrival[node])]
        ends += [(arrival[node] + setup(library, slew[node]), node, "out")
                 for net in set(netlist.outputs) for node in (2 * net, 2 * net + 1)
                 if np.isfinite(arrival[node])]
        for end in ("reg", "out"):
            length, node, _ = max((e for e in ends if e[2] == end), default=(None, None, None))
            if node is not None:
                paths.append(Path(f"{begin}-{end}", float(length), graph.steps(node, arrival, cause)))
    return sorted(paths, key=lambda path: -path.length)
