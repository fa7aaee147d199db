# SPDX-License-Identifier: Apache-2.0
"""A tile: what a program does to memory, scratchpad and KV cache, instruction by instruction.

Instructions are carried out one after the other. The hardware overlaps them and comes to the same, if the program's
waits say what depends on what.
"""

from collections import Counter, deque

import numpy as np

from golden import attention, dma, matmul, sequencer, vector
from golden.config import check_tile
from golden.families import FAMILIES, FORMAT_CODES
from golden.formats import E8M0, FORMATS, MX_BLOCK
from golden.isa import REGISTERS, Engine, Error, Operation, Quantize, Second, disassemble
from golden.kvcache import Controller
from golden.kvstore import Store as KvStore
from golden.paging import ARGUMENTS, HEADER, STAT, Command, Opcode, Status, Table, unpack

__all__ = ["Tile", "TileError"]

FORMAT_NAMES = {code: name for name, code in FORMAT_CODES.items()}
FP32_BYTES = 4
PAIR = 8, FP32_BYTES    # bytes that `HEADS` writes at a time, and what their addresses are multiples of


class TileError(RuntimeError):
    """An instruction that the tile refuses; `pc` and `engine` say which, `error` what the sequencer says of it."""

    def __init__(self, pc, engine, reason):
        super().__init__(f"instruction {pc}, {engine.name}: {reason}")
        self.pc, self.engine, self.reason = pc, engine, reason
        self.error = {dma.AddressError: Error.ADDRESS, StarvedError: Error.WATCHDOG}.get(
            type(reason), Error.INSTRUCTION)


class StarvedError(ValueError):
    """Weights that nobody reads ahead."""


class Tile:
    """The reference of a tile.

    Parameters
    ----------
    chip : golden.config.Chip
        One that `check_tile` lets pass.
    size : int
        Bytes of the memory behind the channel.
    kv_base, kv_host_base : int
        Where the pool of the KV cache begins in it, and its slots for swapped sequences; 0: there are none.

    Attributes
    ----------
    memory, scratchpad : array of uint8
    controller : golden.kvcache.Controller
    store : golden.kvstore.Store
        Its pool is part of `memory`.
    events : Counter
        What took place, by name: products, elements of vector operations, bytes moved for each purpose.
    nans : Counter
        Results that are NaN, by engine.
    """

    def __init__(self, chip, size, kv_base, kv_host_base=0):
        check_tile(chip)
        self.chip, self.kv_base, self.kv_host_base = chip, kv_base, kv_host_base
        self.memory, self.scratchpad = np.zeros(size, np.uint8), np.zeros(chip.memory.scratchpad, np.uint8)
        self.weights = deque()
        self.events, self.nans = Counter(), Counter()
        self.reset()

    def reset(self):
        """What the host may ask for at any time: the KV cache forgets its sequences; memories stay as they are."""
        self.controller, self.store = Controller(self.chip.kvcache), KvStore(self.chip.kvcache)
        blocks = self.store.pool.shape
        self.store.pool = self.memory[self.kv_base:][:self.store.pool.size].reshape(blocks)
        if self.kv_host_base:
            slots = self.chip.kvcache.host_blocks
            host = self.memory[self.kv_host_base:][:slots * self.chip.kvcache.block_bytes]
            self.store.host = dict(enumerate(host.reshape(slots, *blocks[1:])))

    def run(self, image, registers=()):
        """Carry a program out.

        Parameters
        ----------
        image : bytes
        registers : sequence of int
            What registers 1 and on hold at the begin.

        Raises
        ------
        golden.isa.IsaError
            When it is no program.
        TileError
            When an instruction is refused; those before it have been carried out.
        """
        self.weights.clear()
        for each in sequencer.run(disassemble(image), (0, *registers, *[0] * REGISTERS)[:REGISTERS]):
            self.carry_out(each)

    def carry_out(self, each):
        """One instruction.

        Parameters
        ----------
        each : golden.sequencer.Dispatched

        Raises
        ------
        TileError
        """
        given = {name: each.instruction.fields.get(name, 0) for name in each.instruction.names}
        try:
            getattr(self, f"_{each.engine.name.lower()}")(each.instruction, **given)
        except ValueError as error:
            raise TileError(each.pc, each.engine, error) from None

    # Engines

    def _load(self, instruction, bytes, rows, count=1, **_):
        beat = self.chip.memory.channel
        self._moved(dma.load(instruction, self.memory, self.scratchpad, beat))
        self.events["load_bytes"] += count * rows * -(-bytes // beat) * beat

    def _store(self, instruction, bytes, rows, **_):
        self._moved(dma.store(instruction, self.memory, self.scratchpad, self.chip.memory.channel))
        self.events["store_bytes"] += rows * bytes

    @staticmethod
    def _moved(error):
        if error:
            raise ValueError(error.name)

    def _weights(self, _, source, bytes):
        beat = max(self.chip.memory.channel, self.chip.matmul.depth)
        if source % beat or bytes % beat or not bytes:
            raise ValueError(f"address and bytes must be multiples of {beat}, of which there are some")
        self._memory(source, bytes)
        self.weights.append([source, bytes])
        self.events["weight_bytes"] += bytes

    def _matmul(self, _, m, n, k, a_format, w_format, y_format, row_scaled, column_scaled, biased, accumulate, mx,
                a, a_pitch, w, scales, scales_pitch, column_scales, bias, c, c_pitch, y, y_pitch):
        config = self.chip.matmul
        if not 1 <= m <= config.m_max or not 1 <= n <= config.n_max or not 1 <= k <= config.k_max:
            raise ValueError(f"m, n, k = {m}, {n}, {k}: must be 1 to {config.m_max}, {config.n_max}, {config.k_max}")
        a_format, w_format, y_format = (FORMAT_NAMES.get(each, "") for each in (a_format, w_format, y_format))
        family, mx = FAMILIES[config.family], bool(mx)
        if (a_format not in family.activations or w_format not in family.weights or y_format in ("", "e2m1")
                or mx and (not config.mx or family.rate(a_format, w_format) > 1)):
            raise ValueError(f"{a_format} x {w_format} to {y_format}: not in family {config.family}")
        at, beat, numbers = {"a_format": a_format, "mx": mx}, config.row_bits // 8, FP32_BYTES * config.drain
        block_bytes = matmul.weight_bytes(config, w_format, config.cols, k, **at)
        for _, column, _, columns in matmul.blocks(config, (m, n, k)):
            self._pop(w + column // config.cols * block_bytes, matmul.weight_bytes(config, w_format, columns, k, **at))
        image = self._memory(w, matmul.weight_bytes(config, w_format, n, k, **at))
        codes, w_scales = matmul.weights(config, w_format, image, n, k, **at)
        gemm = matmul.Gemm(
            self._codes(a_format, a, a_pitch, (m, k), beat), codes, a_format, w_format, y_format,
            *(self._codes("fp32", start, 0, (1, count), numbers)[0].view(np.float32) if there else None for
              there, start, count in ((row_scaled, scales, m), (column_scaled, column_scales, n), (biased, bias, n))),
            self._codes("fp32", c, c_pitch, (m, n), numbers).view(np.float32) if accumulate else None,
            np.stack([self._read(scales + block * scales_pitch, m, numbers) for block in range(-(-k // MX_BLOCK))], 1)
            if mx else None, w_scales)
        found, nans = matmul.matmul(config.family, gemm, (config.rows, config.lanes))
        self._put(y_format, y, y_pitch, found, FORMATS[y_format].width // 8 * config.drain, config.drain)
        self.nans[Engine.MATMUL] += nans
        self.events[f"macs_{w_format}"] += m * n * k

    def _vector(self, vectors, second, quantize, x_format, y_format, result_format, k, rows, length, alpha, beta,
                x, x_pitch, y, y_pitch, result, result_pitch, scalars, scalars_pitch):
        operation, second, quantize = vectors.opcode, Second(second), Quantize(quantize)
        names = {"x_format": _name(x_format),
                 "y_format": E8M0.name if second == Second.BLOCK else _name(y_format if second else x_format),
                 "result_format": "fp32" if operation == Operation.TOP_K else _name(result_format)}
        alpha, beta = (float(np.uint32(each).view(np.float32)) for each in (alpha, beta))
        instruction = vector.Instruction(operation, **names, alpha=alpha, beta=beta, quantize=quantize, k=k)
        vector.check(instruction, (rows, length), self.chip.vector.row_max)
        beat = FP32_BYTES * self.chip.vector.lanes
        operand = self._codes(names["x_format"], x, x_pitch, (rows, length), beat)
        other, each = None, {Second.ABSENT: 0, Second.ELEMENT: length, Second.ROW: 1,
                             Second.BLOCK: -(-length // MX_BLOCK)}[second]
        if each:
            other = self._codes(names["y_format"], y, y_pitch, (rows if y_pitch else 1, each), beat)
        found = vector.execute(instruction, operand, other, lanes=self.chip.vector.lanes)
        if found.codes is not None:
            self._put(names["result_format"], result, result_pitch, found.codes, beat)
        if found.scalars is not None:
            self._put_bytes(scalars, scalars_pitch, vector.scalar_image(quantize, found.scalars), beat)
        self.nans[Engine.VECTOR] += found.nans
        self.events[f"vector_{operation.name.lower()}"] += rows * length * (k if operation == Operation.TOP_K else 1)

    def _heads(self, instruction, **given):
        getattr(self, f"_{instruction.opcode.name.lower()}")(**given)

    def _attend(self, sid, layer, rows, group, q, k, v, pitch, result, result_pitch, window):
        """New keys and values join the cache; then as many tokens' queries at a time as there is room for."""
        kv = self.chip.kvcache
        heads, dim, together = kv.kv_heads, kv.head_dim, self.chip.attention.group // max(group, 1)
        if not rows or not 1 <= group <= self.chip.attention.group:
            raise ValueError(f"rows = {rows}, group = {group}: must be 1 or more, and 1 to {self.chip.attention.group}")
        length = self._length(sid)
        if rows > length:
            raise ValueError(f"sequence {sid} has {length} tokens, not {rows}")
        self._ask(Opcode.WRITE, sid=sid, layer=layer, first=length - rows, count=rows)
        beat = FP32_BYTES * kv.lanes
        keys, values = (self._codes("fp32", each, pitch, (rows, heads * dim), beat) for each in (k, v))
        self.store.write(self.controller.ranges, layer, *(each.reshape(rows, heads, dim) for each in (keys, values)))
        self.events["kv_write_bytes"] += 2 * rows * heads * kv.row_beats * kv.beat
        queries = self._codes("fp32", q, pitch, (rows, heads * group * dim), beat).reshape(rows, heads, group, dim)
        fit = True
        for at in range(0, rows, together):
            own = queries[at:at + together]
            ends = length - rows + at + 1 + np.arange(len(own))         # what a token's queries see goes up to there
            begin = max(0, int(ends[0]) - window) if window else 0
            count = int(ends[-1]) - begin
            self._ask(Opcode.STREAM, sid=sid, layer=layer, heads=(1 << heads) - 1, first=begin, count=count)
            ranges = self.controller.ranges
            first = np.maximum(ends - (window or length), begin) - begin
            self.controller.retire(sid)
            found = []
            fit = fit and all(self.store.fits(ranges, layer, head) for head in range(heads))
            for head in range(heads):
                codes = self.store.rows(ranges, layer, head)
                found.append(attention.attention(
                    kv, own[:, head].reshape(-1, dim), *codes, first=np.repeat(first, group),
                    end=np.repeat(ends - begin, group)).rows.reshape(len(own), group * dim))
            self._put("fp32", result + at * result_pitch, result_pitch, np.concatenate(found, 1), *PAIR)
            beats = heads * sum(kv.segment_beats(slots) for *_, slots in ranges)
            self.events["kv_read_bytes"] += beats * kv.beat
            self.events["attention_macs"] += 2 * heads * group * count * dim * len(own)
        if not fit:
            raise ValueError(f"sequence {sid}: keys or values of layer {layer} do not fit their checksums")

    def _extend(self, sid, tokens, result):
        self._ask(Opcode.APPEND, sid=sid, tokens=tokens)
        self._put("fp32", result, 0, np.array([[self._length(sid) - tokens]], np.uint32), *PAIR)

    def _command(self, word0, word1, word2, word3, result):
        word = word0 | word1 << 32 | word2 << 64 | word3 << 96
        opcode = word & 0xFF
        if opcode not in ARGUMENTS or opcode in (Opcode.LOOKUP, Opcode.ATTACH, Opcode.STREAM, Opcode.WRITE):
            raise ValueError(f"command {opcode}: not one that a program gives")
        if opcode in (Opcode.SWAP_OUT, Opcode.SWAP_IN) and not self.kv_host_base:
            raise ValueError(f"{Opcode(opcode).name}: there is no host memory, kv_host_base is 0")
        given = unpack(HEADER | ARGUMENTS[opcode], word)
        given.pop("opcode")
        completion = self.controller.run(Command(Opcode(opcode), given))
        for move in self.controller.moves:
            self.store.move(*move)
        self.controller.moves.clear()
        self._put_bytes(result, 0, np.array([[completion.word]], "<u8"), *PAIR)

    # The KV cache

    def _ask(self, opcode, **arguments):
        completion = self.controller.run(Command(opcode, arguments))
        for move in self.controller.moves:
            self.store.move(*move)
        self.controller.moves.clear()
        if completion.status:
            raise ValueError(f"{opcode.name} of sequence {arguments.get('sid', arguments.get('index'))}: "
                             f"{Status(completion.status).name}")
        return completion.payload

    def _length(self, sid):
        """Tokens of a sequence."""
        return unpack(STAT[Table.SEQUENCE], self._ask(Opcode.STAT, table=Table.SEQUENCE, index=sid))["length"]

    # Weights that were read ahead

    def _pop(self, address, count):
        """The matmul engine takes bytes that must be the next ones."""
        while count:
            if not self.weights:
                raise StarvedError(f"weights at {address:#x} were not read ahead")
            if self.weights[0][0] != address:
                raise ValueError(f"weights at {address:#x} are not the next that were read ahead")
            part = min(count, self.weights[0][1])
            self.weights[0][0] += part
            self.weights[0][1] -= part
            if not self.weights[0][1]:
                self.weights.popleft()
            address, count = address + part, count - part

    # Memories

    def _memory(self, address, count):
        if address + count > len(self.memory):
            raise ValueError(f"bytes {address:#x} to {address + count:#x}: the memory has {len(self.memory):#x}")
        return self.memory[address:address + count]

    def _read(self, address, count, beat):
        return dma.part(self.scratchpad, address % dma.REACH, count, beat)

    def _write(self, address, data, piece, unit):
        """Bytes that are written in pieces, none of which may cross a word."""
        part = dma.part(self.scratchpad, address % dma.REACH, len(data), unit)
        if address % piece:
            begins = address + np.arange(0, len(data), piece)
            ends = np.minimum(begins + piece, address + len(data)) - 1
            if (begins // self.chip.word != ends // self.chip.word).any():
                raise dma.AddressError(f"address {address:#x}: writes cross a word of {self.chip.word} bytes")
        part[:] = data

    def _codes(self, name, address, pitch, shape, beat):
        """Rows of codes of a format: (rows, length)."""
        (rows, length), width = shape, FORMATS[name].width
        size = -(-length * width // 8)
        data = np.stack([self._read(address + row * pitch, size, beat) for row in range(rows)])
        if width == 4:
            return np.stack([data & 15, data >> 4], -1).reshape(rows, -1)[:, :length]
        return data.view(FORMATS[name].dtype.newbyteorder("<"))

    def _put(self, name, address, pitch, codes, piece, unit=1):
        """Rows of codes to the scratchpad."""
        self._put_bytes(address, pitch, vector.image(name, codes), piece, unit)

    def _put_bytes(self, address, pitch, rows, piece, unit=1):
        for n, row in enumerate(np.ascontiguousarray(rows)):
            self._write(address + n * pitch, row.view(np.uint8), piece, unit)


def _name(code):
    """Of a format."""
    if code not in FORMAT_NAMES:
        raise ValueError(f"format {code}: there is none")
    return FORMAT_NAMES[code]
