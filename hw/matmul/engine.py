# SPDX-License-Identifier: Apache-2.0
"""The matmul engine: commands in, requests out, results out."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect, flipped

from golden.families import FAMILIES
from hw.arith.aligned import TAG
from hw.fetch import Fetch, request, response
from hw.matmul.accumulator import Accumulator
from hw.matmul.array import Array
from hw.matmul.drain import Drain
from hw.matmul.parameters import Parameters, longest_read
from hw.matmul.ports import Error, Part, command, completion, result
from hw.matmul.sequencer import Loader, Sequencer
from hw.matmul.walker import Walker, aligned, scale_beats
from hw.stream import Queue

__all__ = ["Engine", "reads", "unit"]


def reads(config):
    """What the engine reads: by port, bits of a beat and the most beats and rows of one request."""
    return {
        "weights": (config.depth * 8, config.cols + scale_beats(config), 1),
        "activations": (config.row_bits, 1, config.acc_rows),
        "parameters": (config.drain * 32, longest_read(config), config.acc_rows),
    }


def unit(config):
    """Bytes of which slices of activations begin at multiples, if their rows do: where sums are aligned they may be as
    short as a quarter of a beat."""
    return config.row_bits // 8 // (4 if FAMILIES[config.family].aligned else 1)


class Engine(Part):
    """General matrix multiplication, `Y[M, N] = A[M, K] @ W[N, K].T`, a command at a time.

    The engine owns the loops: it asks for weights, activations and parameters (address, beats,
    strides) and takes them in the order asked. Commands queue, and the next one's weights load while
    this one drains. `golden.matmul` is its specification, cycles included.

    Parameters
    ----------
    config : golden.config.Matmul

    Members
    -------
    commands : In(stream.Signature(command(config)))
    weights_request, activations_request, parameters_request : Out(stream.Signature(request))
    weights, activations, parameters : In(stream.Signature(response))
        The beats asked for: `config.depth`, `config.row_bits / 8` and `config.drain * 4` bytes each.
    results : Out(stream.Signature(result(config)))
    completions : Out(stream.Signature(completion()))
        One a command, in order.
    error : Out(Error), error_tag : Out(8)
        First error since `clear`, and the command it befell.
    clear : In(1)
    """

    def __init__(self, config):
        self.config = config
        super().__init__({
            "commands": In(stream.Signature(command(config))),
            **{f"{name}_request": Out(stream.Signature(request(beats, rows)))
               for name, (_, beats, rows) in reads(config).items()},
            **{name: In(stream.Signature(response(width))) for name, (width, _, _) in reads(config).items()},
            "results": Out(stream.Signature(result(config))),
            "completions": Out(stream.Signature(completion())),
            "error": Out(Error), "error_tag": Out(8), "clear": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # Commands become tiles and blocks, which wait in queues for their turn.
        m.submodules.commands = commands = Queue(command(config), 2)
        m.submodules.walker = walker = Walker(config)
        m.submodules.loads = loads = Queue(walker.load.payload.shape(), 4)
        m.submodules.tiles = tiles = Queue(walker.tile.payload.shape(), 4)
        m.submodules.blocks = blocks = Queue(walker.block.payload.shape(), 2)
        connect(m, flipped(self.commands), commands.i)
        connect(m, commands.o, walker.i)
        connect(m, walker.load, loads.i)
        connect(m, walker.tile, tiles.i)
        connect(m, walker.block, blocks.i)

        fetches = {name: Fetch(*size) for name, size in reads(config).items()}
        for name, fetch in fetches.items():
            m.submodules[f"fetch_{name}"] = fetch
            connect(m, fetch.request, flipped(getattr(self, f"{name}_request")))
            connect(m, flipped(getattr(self, name)), fetch.response)
        connect(m, walker.weights, fetches["weights"].i)
        connect(m, walker.activations, fetches["activations"].i)

        # Beats and rows go to the array, sums into the accumulators below it.
        m.submodules.loader = loader = Loader(config)
        m.submodules.sequencer = sequencer = Sequencer(config)
        m.submodules.array = array = Array(config.family, config.lanes, config.rows, config.cols, config.groups)
        connect(m, loads.o, loader.tile)
        connect(m, tiles.o, sequencer.tile)
        connect(m, fetches["weights"].o, loader.beats)
        connect(m, fetches["activations"].o, sequencer.rows)
        m.d.comb += [
            loader.swap.eq(sequencer.swap),
            sequencer.full.eq(loader.full), sequencer.bad_weights.eq(loader.bad),
            array.beat.codes.eq(loader.codes), array.beat.format.eq(loader.format),
            array.beat.columns.eq(loader.columns),
            array.row.codes.eq(sequencer.codes), array.row.format.eq(sequencer.format),
            array.row.count.eq(sequencer.count), array.row.swap.eq(sequencer.swap),
        ]
        if aligned(config):
            m.d.comb += array.beat.aligned.eq(loader.aligned), array.row.aligned.eq(sequencer.wave.aligned)

        accumulators, wave = [], sequencer.wave
        for stage in range(array.latency - 1):
            held = Signal.like(wave, name=f"wave{stage}")
            m.d.sync += held.eq(wave)
            if config.mx and stage == 1:
                m.d.sync += held.scale.eq(sequencer.scale)
            wave = held
        for n in range(config.groups):
            accumulator = Accumulator(config)
            m.submodules[f"accumulator{n}"] = accumulator
            accumulators.append(accumulator)
            columns = slice(n * config.group, (n + 1) * config.group)
            m.d.comb += [
                accumulator.wave.eq(wave),
                accumulator.sums.eq(array.sums.as_value().word_select(n, config.group * array.width)),
                accumulator.nans.eq(array.nans[columns]),
            ]
            if aligned(config):
                m.d.comb += accumulator.tags.eq(array.tags.as_value().word_select(n, config.group * TAG))
            if config.mx:
                for part in range(len(accumulator.scales.load)):
                    beat, place = divmod(n * config.group + part * accumulator.part, config.depth)
                    m.d.comb += [
                        accumulator.scales.load[part].eq(loader.scales[beat]),
                        accumulator.scales.codes.word_select(part, 8 * accumulator.part).eq(
                            loader.codes[8 * place:8 * (place + accumulator.part)]),
                        accumulator.scales.set.eq(loader.set),
                    ]
            held = Signal.like(wave, name=f"wave_group{n}")
            m.d.sync += held.eq(wave)
            wave = held

        # Blocks collect their parameters and are drained.
        m.submodules.drain = drain = Drain(config)
        m.submodules.parameters = parameters = Parameters(config, c_depth=drain.depth)
        connect(m, blocks.o, parameters.i)
        connect(m, parameters.request, fetches["parameters"].i)
        connect(m, fetches["parameters"].o, parameters.beats)
        m.submodules.ready = ready = Queue(parameters.o.payload.shape(), 2)
        connect(m, parameters.o, ready.i)
        connect(m, ready.o, drain.i)
        connect(m, parameters.c, drain.c)
        connect(m, drain.results, flipped(self.results))
        connect(m, drain.completions, flipped(self.completions))
        turn = Signal.like(drain.turn)
        m.d.sync += turn.eq(drain.turn)
        m.d.comb += [
            drain.c_arrives.eq(parameters.c_arrives),
            *(getattr(parameters, f"{name}_read").eq(getattr(drain, f"{name}_read"))
              for name in ("row", "column", "bias")),
            *(getattr(drain, name).eq(getattr(parameters, name)) for name in ("row_scale", "column_scales", "bias")),
            drain.done.eq(accumulators[0].done),        # the others follow at the pace of the drain
            drain.sums.eq(Cat(a.o for a in accumulators).word_select(turn, len(drain.sums.as_value()))),
            parameters.release.eq(drain.finished_with), sequencer.release.eq(drain.release.any()),
            sequencer.drained.eq(drain.read.row),
            *(accumulator.read.eq(drain.read) for accumulator in accumulators),
        ]

        # A block whose weights or rows did not come says so until it is drained.
        bad, passing = Signal(2), sequencer.wave
        for n in range(2):
            with m.If(drain.release[n]):
                m.d.sync += bad[n].eq(0)
            with m.If(passing.valid & passing.last & (passing.parity == n) & sequencer.bad):
                m.d.sync += bad[n].eq(1)
        m.d.comb += drain.bad.eq(bad)

        # The first error stays.
        with m.If(self.clear):
            m.d.sync += self.error.eq(Error.NONE)
        with m.Elif(self.error == Error.NONE):
            with m.If(self.completions.valid & self.completions.ready):
                m.d.sync += [
                    self.error.eq(self.completions.payload.error),
                    self.error_tag.eq(self.completions.payload.tag),
                ]
            with m.If(Cat(fetch.error for fetch in fetches.values()).any()):
                m.d.sync += self.error.eq(Error.RESPONSE)
        return m
