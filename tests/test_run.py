# SPDX-License-Identifier: Apache-2.0

from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import In, Out

from hw.emit import Block
from sim import run
from sim.run import build, simulate


class Register(Block):
    """o <= i, reset to 0."""

    def __init__(self, width=1):
        super().__init__({"i": In(width), "o": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.i)
        return m


def test_reads_happen_before_and_writes_after_the_edge():
    assert simulate(Register(), "sim.benches.canary") == 1


def test_second_build_is_skipped(monkeypatch):
    model = build(Register())
    monkeypatch.setattr(run, "_run", lambda *_: pytest.fail("it was built again"))
    assert build(Register()) == model


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A cocotb bench of one test whose body is given; returns the module's name."""
    def write(body):
        (tmp_path / "tiny.py").write_text(
            f"import cocotb, os\n@cocotb.test()\nasync def tiny(dut):\n    {body}\n")
        monkeypatch.syspath_prepend(tmp_path)
        return "tiny"
    return write


def test_failure_names_seed_and_log(bench):
    with pytest.raises(AssertionError, match=r"^1 of 1 cocotb tests failed; replay with SEED=7; see .*log$"):
        simulate(Register(), bench("assert 0"), seed=7)


def test_missing_bench_names_the_log():
    with pytest.raises(AssertionError, match=r"^no_such on register_1 ended without results; see .*log$"):
        simulate(Register(), "no_such")


def test_registers_wake_up_by_the_seed(bench, tmp_path):
    def wake(seed, x_initial):
        simulate(Register(64), body, seed=seed, x_initial=x_initial, env={"OUT": tmp_path / "out"})
        return (tmp_path / "out").read_text()
    body = bench("open(os.environ['OUT'], 'w').write(str(int(dut.o.value)))")
    assert wake(1, "0") == wake(2, "0") == "0"
    assert wake(1, "unique") == wake(1, "unique") != wake(2, "unique") != "0"


def test_seed_of_the_environment_wins(monkeypatch, capsys):
    monkeypatch.setenv("SEED", "123")
    simulate(Register(), "sim.benches.canary", seed=7)
    assert "SEED=123;" in capsys.readouterr().out


def test_waves_on_request(monkeypatch, capsys):
    monkeypatch.setenv("WAVES", "1")
    simulate(Register(), "sim.benches.canary", seed=1)
    log = Path(capsys.readouterr().out.rpartition("; ")[2].strip())
    assert "$var" in (log.parent / "dump.vcd").read_text()


def test_unknown_x_initial_is_refused():
    with pytest.raises(ValueError, match="^simulate: x_initial must be '0' or 'unique', not 'x'$"):
        simulate(Register(), "sim.benches.canary", x_initial="x")


def test_verilator_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setenv("VERILATOR", "no-such-verilator")
    with pytest.raises(FileNotFoundError, match="VERILATOR=no-such-verilator: no such program"):
        run.verilator()
