# SPDX-License-Identifier: Apache-2.0
"""Programs: what a tile does for some tokens of some sequences, layer by layer.

    tokens -> embedding -> layers x (norm, q k v, rotary, KV cache and attention, o, norm, gate and up, down)
           -> norm -> logits -> the likeliest tokens -> again

The residual stream stays in FP32 and grows in the drain of the matmul engine. Whatever enters a GEMM is normed, or
gated, and quantized in one pass of the vector engine. A program's size depends on none of layers, batch, context.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

from golden import matmul
from golden.families import FORMAT_CODES
from golden.formats import FORMATS, MX_BLOCK
from golden.isa import (
    K_MAX,
    Control,
    Gemm,
    Heads,
    Instruction,
    Load,
    Operation,
    Quantize,
    Second,
    Store,
    Weights,
    assemble,
)
from golden.vector import LOG2E, code
from sw.compiler.layout import PICK, ModelError, align
from sw.compiler.schedule import schedule

__all__ = ["Shape", "program", "rows_at_once"]

SEQUENCE, OFFSET, RECORD, OTHER, NEXT, LAYER, OUT = range(1, 8)
"""Registers: of the sequence or a row of cosines and sines, of a row of q, k, v; the layer's record in the scratchpad
and room for the next one's, where that lies in memory, the layer's number, and where results go."""


@dataclass(frozen=True)
class Shape:
    """What a program does.

    Attributes
    ----------
    sequences, tokens : int
        How many, from sequence `first` on, and new tokens of each.
    steps : int
        How often. From the second on each token is the likeliest after the one before.
    first : int
    head : str
        Of which tokens logits are computed: "last" of each sequence, "all", or "none". More than one token in a step
        needs a single sequence.
    logits : bool
        Whether they leave, beside the tokens.
    picks : int
        How many of the likeliest tokens are told of.
    """

    sequences: int = 1
    tokens: int = 1
    steps: int = 1
    first: int = 0
    head: str = "last"
    logits: bool = False
    picks: int = 1

    @property
    def rows(self):
        """Tokens of a step."""
        return self.sequences * self.tokens

    @property
    def results(self):
        """Tokens of a step of which there are logits."""
        return {"last": self.sequences, "all": self.rows, "none": 0}[self.head]

    def check(self, layout):
        """Refuse what cannot be.

        Raises
        ------
        ModelError
        """
        for wrong, sentence in (
            (min(self.sequences, self.tokens, self.steps) < 1,
             f"{self.sequences} sequences, {self.tokens} tokens, {self.steps} steps: must be 1 or more each"),
            (self.first + self.sequences > layout.chip.kvcache.sequences,
             f"sequences {self.first} to {self.first + self.sequences - 1}: there are {layout.chip.kvcache.sequences}"),
            (self.tokens > 1 and self.sequences > 1, "several tokens of several sequences: must be of one"),
            (self.steps > 1 and (self.tokens > 1 or self.head != "last"), "several steps: must have a token each"),
            (self.rows > layout.rows, f"{self.rows} tokens in a step: there is room for {layout.rows}"),
            (self.steps * self.results > layout.results,
             f"results of {self.steps * self.results} tokens: there is room for {layout.results}"),
            (not 1 <= self.picks <= min(K_MAX, layout.model.vocabulary),
             f"picks = {self.picks}: must be 1 to {min(K_MAX, layout.model.vocabulary)}"),
        ):
            if wrong:
                raise ModelError(sentence)


def program(layout, shape):
    """The instructions of a `Shape`, with waits, and their image.

    Parameters
    ----------
    layout : sw.compiler.layout.Layout
    shape : Shape

    Raises
    ------
    ModelError
        No room in the scratchpad, or for such a program.
    """
    shape.check(layout)
    done = schedule(layout.chip, _Program(layout, shape).instructions)
    return done, assemble(done, layout.chip.sequencer.instructions)


def rows_at_once(layout, head="last"):
    """The most tokens of a sequence that the scratchpad has room for in a step, and the matmul engine takes at once."""
    low, high = 0, min(layout.chip.matmul.acc_rows, layout.rows)
    while low < high:
        middle = (low + high + 1) // 2
        try:
            _Scratchpad(layout, Shape(tokens=middle, head=head))
            low = middle
        except ModelError:
            high = middle - 1
    if not low:
        _Scratchpad(layout, Shape())            # says what there is no room for
    return low


class _Scratchpad:
    """Where rows of activations lie, each from the begin of a word on: addresses and pitches by name.

    What lives from a GEMM to the next shares its place with what lives elsewhere.
    """

    def __init__(self, layout, shape):
        model, scheme, word = layout.model, layout.scheme, layout.word
        rows, results, width = shape.rows, shape.results, FORMATS[layout.scheme.a_format].width
        k = max(model.hidden, model.intermediate, model.heads * layout.head_dim)
        q, kv = 4 * model.heads * layout.head_dim, 4 * model.kv_heads * layout.head_dim
        self.at, self.pitch, self.end = {}, {}, 0
        place = self._place
        place("record", 2, align(layout.record, word))
        place("tokens", rows, align(PICK * shape.picks, word))
        place("picks", max(results, 1), align(PICK * shape.picks, word))
        place("positions", shape.sequences, word)
        place("rope", rows, align(layout.rope_pitch, word))
        place("x", rows, align(4 * model.hidden, word))
        place("a", rows, align(-(-k * width // 8), word))
        if scheme.scales == "block":
            place("scales", -(-k // MX_BLOCK), align(rows, word))
        else:
            place("scales", 1, align(4 * rows, word))
        begin = self.end
        place("qkv", rows, align(q + 2 * kv, word))
        self.at["k"], self.at["v"] = self.at["qkv"] + q, self.at["qkv"] + q + kv
        ends = [self.end]
        for others in (("gate", "up"), ("embedding",), ("logits",)):
            self.end = begin
            for name in others:
                size = {"embedding": layout.embedding_pitch, "logits": 4 * model.vocabulary}.get(
                    name, 2 * model.intermediate)
                place(name, results if name == "logits" else rows, align(size, word))
            ends.append(self.end)
        room = layout.chip.memory.scratchpad
        if max(ends) > room:
            raise ModelError(f"memory.scratchpad = {room}: must be {max(ends)} or more for {rows} tokens at once")

    def _place(self, name, count, pitch):
        self.at[name], self.pitch[name] = self.end, pitch
        self.end += count * pitch


class _Program:
    """Writes a program; see `program`."""

    def __init__(self, layout, shape):
        self.layout, self.shape, self.scheme = layout, shape, layout.scheme
        self.instructions = []
        self.pad = _Scratchpad(layout, shape)
        self._write()

    def _write(self):
        layout, shape, model = self.layout, self.shape, self.layout.model
        rows, at, pitch = shape.rows, self.pad.at, self.pad.pitch
        self._set(RECORD, at["record"])
        self._set(OTHER, at["record"] + pitch["record"])
        self._set(OUT, layout.at["results"])
        self._set(NEXT, layout.layer(0))
        self._load_record()
        self._emit(Control.SWAP, register=RECORD, other=OTHER)
        self._copy(Load.COPY, (layout.at["tokens"], layout.pick), (at["tokens"], pitch["tokens"]), PICK, rows)
        with self._loop(shape.steps):
            with self._rows(shape.sequences, {SEQUENCE: 1, OFFSET: pitch["positions"]}):
                self._emit(Heads.EXTEND, {"sid": SEQUENCE, "result": OFFSET}, sid=shape.first, tokens=shape.tokens,
                           result=at["positions"])
            self._gather("embedding", ("tokens", 4), (at["embedding"], pitch["embedding"]), rows, 1)
            self._gather("rope", ("positions", 0), (at["rope"], pitch["rope"]), shape.sequences, shape.tokens)
            self._vector(Operation.MUL, rows, model.hidden, "embedding", "x", x_format="bf16", result_format="fp32")
            self._set(LAYER, 0)
            self._set(NEXT, layout.layer(1))
            for window, layers in groupby(model.windows):
                with self._loop(len([*layers])):
                    self._layer(window or 0)
                    self._emit(Control.ADD, register=LAYER, value=1)
                    self._emit(Control.ADD, register=NEXT, value=layout.pitch)
                    self._emit(Control.SWAP, register=RECORD, other=OTHER)
            if shape.head != "none":
                self._head()
            self._set(NEXT, layout.layer(0))
            if shape.steps > 1:
                self._load_record()
                self._emit(Control.SWAP, register=RECORD, other=OTHER)

    def _layer(self, window):
        """A layer; meanwhile the next one's record is loaded."""
        model, pad, rows = self.layout.model, self.pad, self.shape.rows
        at, heads, dim = pad.at, model.heads, self.layout.head_dim
        self._weights(("qkv", "o", "gate", "up", "down"))
        self._load_record()
        self._norm("input", "x", rows)
        self._gemm("qkv", "qkv", rows, "fp32")
        if model.head_norms:
            for name, place, count in ("q", at["qkv"], heads), ("k", at["k"], model.kv_heads):
                self._of_heads(Operation.RMS_NORM, place, count, (self.layout.norms[name], RECORD),
                               alpha=1 / model.head_dim, beta=model.epsilon)
        self._of_heads(Operation.ROPE, at["qkv"], heads + model.kv_heads, (at["rope"], SEQUENCE), pad.pitch["rope"])
        with self._rows(self.shape.sequences, {SEQUENCE: 1, OFFSET: pad.pitch["qkv"]}):
            self._emit(Heads.ATTEND, {"sid": SEQUENCE, "layer": LAYER, "q": OFFSET, "k": OFFSET, "v": OFFSET,
                                      "result": OFFSET},
                       sid=self.shape.first, rows=self.shape.tokens, group=heads // model.kv_heads,
                       q=at["qkv"], k=at["k"], v=at["v"], pitch=pad.pitch["qkv"],
                       result=at["qkv"], result_pitch=pad.pitch["qkv"], window=window)
        self._vector(Operation.MUL, rows, heads * dim, "qkv", "a", quantized=True)
        self._gemm("o", "x", rows, "fp32", accumulate=True)
        self._norm("post", "x", rows)
        self._gemm("gate", "gate", rows, "bf16")
        self._gemm("up", "up", rows, "bf16")
        self._vector(Operation.SILU, rows, model.intermediate, "gate", "a", quantized=True, x_format="bf16",
                     y=("up", "bf16"), alpha=-LOG2E)
        self._gemm("down", "x", rows, "fp32", accumulate=True)

    def _head(self):
        """Logits, and the likeliest tokens, which go on to the next step and to memory."""
        layout, shape, pad, model = self.layout, self.shape, self.pad, self.layout.model
        rows = shape.results
        self._weights(("head",))
        self._norm("last", "x", rows, skip=shape.rows - rows)
        self._gemm("head", "logits", rows, "fp32")
        tokens = ("tokens" if shape.steps > 1 else "picks")
        self._emit_vector(Operation.TOP_K, rows, model.vocabulary, (pad.at["logits"], pad.pitch["logits"]), (0, 0),
                          scalars=(pad.at[tokens], pad.pitch[tokens]), k=shape.picks)
        self._copy(Store.COPY, (pad.at[tokens], pad.pitch[tokens]), (0, layout.result_pitch), PICK * shape.picks, rows,
                   {"target": OUT})
        if shape.logits:
            self._copy(Store.COPY, (pad.at["logits"], pad.pitch["logits"]), (layout.picks, layout.result_pitch),
                       4 * model.vocabulary, rows, {"target": OUT})
        self._emit(Control.ADD, register=OUT, value=rows * layout.result_pitch)

    # What layers are made of

    def _norm(self, name, x, rows, skip=0):
        """Norm of rows of x but the first `skip`, quantized."""
        model = self.layout.model
        self._vector(Operation.RMS_NORM, rows, model.hidden, x, "a", quantized=True, skip=skip,
                     y=(self.layout.norms[name], "fp32"), alpha=1 / model.hidden, beta=model.epsilon)

    def _of_heads(self, operation, place, heads, y, y_pitch=0, **constants):
        """An operation on each head of each row, in place: an instruction a row, or a head, whichever are fewer. y is
        an address and its register, and `y_pitch` from one row's to the next."""
        pad, dim = self.pad, self.layout.head_dim
        outer, inner = sorted(((heads, 4 * dim, 0), (self.shape.rows, pad.pitch["qkv"], y_pitch)))
        with self._rows(outer[0], {OFFSET: outer[1], SEQUENCE: outer[2]}):
            here = place, inner[1]
            self._emit_vector(operation, inner[0], dim, here, here, {"x": OFFSET, "result": OFFSET, "y": y[1]},
                              y=(y[0], inner[2]), **constants)

    def _gemm(self, name, y, rows, y_format, accumulate=False):
        """What is in "a" times a layer's weights."""
        scheme, pad, place = self.scheme, self.pad, self.layout.linears[name]
        block = scheme.scales == "block"
        registers = {"w": NEXT}
        fields = {"m": rows, "n": place.n, "k": place.k,
                  "a_format": FORMAT_CODES[scheme.a_format], "w_format": FORMAT_CODES[scheme.w_format],
                  "y_format": FORMAT_CODES[y_format], "row_scaled": int(scheme.scales == "vector"), "mx": int(block),
                  "a": pad.at["a"], "a_pitch": pad.pitch["a"], "w": self._weights_at(place.weights),
                  "y": pad.at[y], "y_pitch": pad.pitch[y]}
        if scheme.scales != "none":
            fields |= {"scales": pad.at["scales"], "scales_pitch": pad.pitch["scales"] if block else 0}
        for flag, field, begin in (("column_scaled", "column_scales", place.scales), ("biased", "bias", place.bias)):
            if begin is not None:
                fields |= {flag: 1, field: begin}
                registers[field] = RECORD
        if accumulate:
            fields |= {"accumulate": 1, "c": pad.at[y], "c_pitch": pad.pitch[y]}
        self._emit(Gemm.GEMM, registers, **fields)

    def _vector(self, operation, rows, length, x, result, *, quantized=False, x_format="fp32", result_format=None,
                y=None, skip=0, **constants):
        """An operation on rows that have names. What is quantized goes into a GEMM. y is a row of the record, or one
        that has a name."""
        pad, scheme, registers, others = self.pad, self.scheme, {}, {}
        if y is not None:
            name, others["y_format"] = y
            others["y"] = (pad.at[name], pad.pitch[name]) if isinstance(name, str) else (name, 0)
            registers = {} if isinstance(name, str) else {"y": RECORD}
        if quantized:
            result_format = scheme.a_format
            others["quantize"] = {"vector": Quantize.ROW, "block": Quantize.MX, "none": Quantize.NONE}[scheme.scales]
            if scheme.scales != "none":
                others["scalars"] = (pad.at["scales"], pad.pitch["scales"] if scheme.scales == "block" else 4)
        self._emit_vector(operation, rows, length, (pad.at[x] + skip * pad.pitch[x], pad.pitch[x]),
                          (pad.at[result], pad.pitch[result]), registers, x_format=x_format,
                          result_format=result_format, **others, **constants)

    def _emit_vector(self, operation, rows, length, x, result, registers=(), *, y=None, scalars=(0, 0), alpha=1.0,
                     beta=-0.0, x_format="fp32", y_format="fp32", result_format="fp32", quantize=Quantize.NONE, k=0):
        """With addresses and pitches."""
        self._emit(operation, dict(registers), rows=rows, length=length, quantize=quantize,
                   second=Second.ABSENT if y is None else Second.ELEMENT, k=k,
                   x_format=FORMAT_CODES[x_format], y_format=FORMAT_CODES[y_format],
                   result_format=FORMAT_CODES[result_format], alpha=int(code(alpha)), beta=int(code(beta)),
                   x=x[0], x_pitch=x[1], y=(y or (0, 0))[0], y_pitch=(y or (0, 0))[1],
                   result=result[0], result_pitch=result[1], scalars=scalars[0], scalars_pitch=scalars[1])

    def _weights(self, names):
        """Read ahead what GEMMs will ask for, in that order: it is in one piece but where they ask again."""
        layout, rows, runs = self.layout, self.shape.results if names == ("head",) else self.shape.rows, []
        for name in names:
            place = layout.linears[name]
            config = layout.chip.matmul
            whole = layout.weight_bytes(config.cols, place.k)
            for _, column, _, columns in matmul.blocks(config, (rows, place.n, place.k)):
                begin = place.weights + column // config.cols * whole
                size = layout.weight_bytes(columns, place.k)
                if runs and sum(runs[-1]) == begin:
                    runs[-1][1] += size
                else:
                    runs.append([begin, size])
        for begin, size in runs:
            self._emit(Weights.STREAM, {"source": NEXT}, source=self._weights_at(begin), bytes=size)

    def _weights_at(self, offset):
        """Where a layer's weights lie, from the next one's record on."""
        return offset + self.layout.record - self.layout.pitch & 0xFFFFFFFF

    # Instructions

    def _load_record(self):
        """The next layer's record."""
        self._emit(Load.COPY, {"source": NEXT, "target": OTHER}, bytes=self.layout.record, rows=1)

    def _gather(self, table, index, target, count, rows):
        """For each index, rows of a table in memory."""
        layout, pad, (name, at) = self.layout, self.pad, index
        size = {"embedding": layout.embedding_pitch, "rope": layout.rope_pitch}[table]
        self._emit(Load.GATHER, source=layout.at[table], source_pitch=size, step=size, target=target[0],
                   target_pitch=target[1], bytes=size, rows=rows, count=count, index=pad.at[name] + at,
                   index_pitch=pad.pitch[name])

    def _copy(self, opcode, source, target, size, rows, registers=None):
        self._emit(opcode, registers, source=source[0], source_pitch=source[1], target=target[0],
                   target_pitch=target[1], bytes=size, rows=rows)

    def _set(self, register, value):
        self._emit(Control.SET, register=register, value=value)

    def _emit(self, opcode, registers=None, **fields):
        self.instructions.append(Instruction(opcode, {name: int(value) for name, value in fields.items()},
                                             registers or {}))

    @contextmanager
    def _loop(self, count):
        self._emit(Control.LOOP, count=count)
        yield
        self._emit(Control.NEXT)

    @contextmanager
    def _rows(self, count, steps):
        """A loop in which registers go up from 0, by a step each."""
        for register in steps:
            self._set(register, 0)
        with self._loop(count):
            yield
            for register, step in steps.items():
                self._emit(Control.ADD, register=register, value=step)
