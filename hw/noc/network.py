# SPDX-License-Identifier: Apache-2.0
"""The whole network: streams in, streams out."""

from amaranth.hdl import Module
from amaranth.lib.wiring import Out, connect, flipped

from hw.emit import Block
from hw.noc.interface import ERROR, Interface, streams
from hw.noc.mesh import Mesh

__all__ = ["Network"]


class Network(Block):
    """A mesh with an interface at each node. Node (x, y) is number y * width + x.

    Parameters
    ----------
    config : golden.config.Noc

    Members
    -------
    n0_<class>_command, n0_<class>_i, n0_<class>_o, n1_... :
        Of the nodes, as of `Interface`.
    write, probe, state :
        As of `Mesh`.
    router_error, interface_error : Out(ERROR) each
        As of `Router` and `Interface`.
    clear : In(1)
        Of all errors.
    """

    def __init__(self, config):
        self.config, self.mesh = config, Mesh(config)
        self.nodes = config.width * config.height
        members = self.mesh.signature.members
        super().__init__({
            **{f"n{n}_{name}": member for n in range(self.nodes) for name, member in streams(config).items()},
            **{name: members[name] for name in ("write", "probe", "state", "clear") if name in members},
            "router_error": members["error"], "interface_error": Out(ERROR).array(self.nodes),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.mesh = mesh = self.mesh
        m.d.comb += mesh.clear.eq(self.clear), mesh.probe.eq(self.probe)
        if mesh.sums:
            m.d.comb += mesh.write.eq(self.write)
        for n in range(self.nodes):
            m.submodules[f"interface{n}"] = one = Interface(self.config)
            for name in streams(self.config):
                outer = flipped(getattr(self, f"n{n}_{name}"))
                connect(m, outer, getattr(one, name))
            connect(m, one.o, mesh.i[n])
            connect(m, mesh.o[n], one.i)
            m.d.comb += [
                one.x.eq(n % self.config.width), one.y.eq(n // self.config.width), one.clear.eq(self.clear),
                self.interface_error[n].eq(one.error), self.router_error[n].eq(mesh.error[n]),
                self.state[n].eq(mesh.state[n]),
            ]
        return m
