# SPDX-License-Identifier: Apache-2.0
"""From prompts to tokens: what a host does with a tile.

Sequences that are decoded together are those with numbers 0 on. When one ends, the last takes its place (a `FORK` of
the KV cache copies nothing).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from golden.isa import BYTES, Heads, Instruction, Store, assemble
from golden.paging import Command, Opcode, Status
from sw.compiler.cycles import predict
from sw.compiler.layout import STEPS, ModelError
from sw.compiler.program import Shape, program, rows_at_once
from sw.compiler.schedule import schedule
from sw.runtime.device import DeviceError

__all__ = ["Run", "Runtime", "Sampling", "check"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes
    ----------
    temperature : float
        Of 0 the likeliest is taken, by the tile itself.
    top_k : int
        Choose among so many likeliest; 0: among all.
    top_p : float
        Among as few of the likeliest as make up so much of all probability.
    seed : int
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self):
        for wrong, sentence in (
            (self.temperature < 0, f"temperature = {self.temperature}: must be 0 or more"),
            (self.top_k < 0, f"top_k = {self.top_k}: must be 0 or more"),
            (not 0 < self.top_p <= 1, f"top_p = {self.top_p}: must be above 0, and 1 at most"),
        ):
            if wrong:
                raise ValueError(sentence)

    def choose(self, logits, random):
        """A token."""
        logits = logits.astype(np.float64)
        order = np.argsort(-logits, kind="stable")
        if not self.temperature:
            return int(order[0])
        order = order[:self.top_k or None]
        powers = np.exp((logits[order] - logits[order[0]]) / self.temperature)
        shares = powers / powers.sum()
        count = int(np.searchsorted(np.cumsum(shares), self.top_p)) + 1
        return int(random.choice(order[:count], p=shares[:count] / shares[:count].sum()))


@dataclass
class Sequence:
    """A sequence under way.

    Attributes
    ----------
    number : int
        Of its prompt.
    next : int
        Its last token, which the tile has not seen yet.
    count : int
        Tokens that came after the prompt.
    """

    number: int
    next: int = 0
    count: int = 0


@dataclass(frozen=True)
class Run:
    """A program that ran.

    Attributes
    ----------
    kind : str
        "prefill" or "decode".
    shape : sw.compiler.program.Shape
    predicted : int
        Cycles, by the compiler.
    cycles : int or None
        By the device, where it tells.
    """

    kind: str
    shape: Shape
    predicted: int
    cycles: int | None


class Runtime:
    """Runs a model on a `Device`.

    Parameters
    ----------
    layout : sw.compiler.layout.Layout
    device : sw.runtime.device.Device
        Its memory is filled with the model.
    steps : int
        Tokens of a program at most: so many are told of at a time.

    Attributes
    ----------
    runs : list of Run
        Programs so far, but those of `command`.
    """

    def __init__(self, layout, device, steps=STEPS):
        self.layout, self.device, self.steps = layout, device, steps
        self.runs = []
        self.lengths = {}           # of sequences, in tokens
        self._program = cache(lambda shape: program(layout, shape)[1])
        model = layout.at["embedding"]          # before it there are programs, and what goes in and comes out
        device.write(model, layout.image[model:].tobytes())

    def generate(self, prompts, count, *, sampling=None, stop=(), keep_logits=False):
        """Tokens that follow prompts, those of all prompts together.

        Parameters
        ----------
        prompts : list of arrays of int
        count : int
            Tokens of each at most.
        sampling : Sampling
            By default the likeliest.
        stop : collection of int
            Tokens that end a sequence; they are its last.
        keep_logits : bool

        Yields
        ------
        number : int
            Of the prompt.
        token : int
        logits : array of float32 or None

        Raises
        ------
        ModelError
            A prompt of nothing, too long, or of tokens that there are not.
        DeviceError
        """
        check(self.layout, prompts, count)
        sampling = sampling or Sampling()
        wants = keep_logits or sampling.temperature > 0
        randoms = [np.random.default_rng((sampling.seed, number)) for number in range(len(prompts))]
        waiting, running = list(range(len(prompts))), []

        def take(sequence, token, logits):
            """A token of the sequence; False when it is the last."""
            if sampling.temperature:
                token = sampling.choose(logits, randoms[sequence.number])
            sequence.next = token
            sequence.count += 1
            return sequence.count < count and token not in stop

        while waiting or running:
            while waiting and len(running) < self.layout.chip.kvcache.sequences:
                place, number = len(running), waiting.pop(0)
                running.append(Sequence(number))
                alive = take(running[place], *(found := self.prefill(place, prompts[number], wants)))
                yield number, running[place].next, found[1] if keep_logits else None
                if not alive:
                    self._end(running, place)
            if not running:
                continue
            room = self.layout.results // len(running)
            steps = 1 if sampling.temperature else min(self.steps, room, *(count - each.count for each in running))
            found = self.decode([each.next for each in running], steps, wants)
            ended = set()
            for step in found:
                for sequence, (token, logits) in zip(running, step, strict=True):
                    if sequence.number in ended:
                        continue
                    if not take(sequence, token, logits):
                        ended.add(sequence.number)
                    yield sequence.number, sequence.next, logits if keep_logits else None
            for place in reversed(range(len(running))):
                if running[place].number in ended:
                    self._end(running, place)

    def prefill(self, sid, tokens, logits=False):
        """Open a sequence with a prompt, in pieces of one size that the scratchpad has room for.

        Returns
        -------
        token : int
            The likeliest after it.
        logits : array of float32 or None
        """
        self.command(Opcode.ALLOC_SEQ, sid=sid)
        self.lengths[sid] = 0
        pieces = np.array_split(tokens, -(-len(tokens) // rows_at_once(self.layout)))
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            shape = Shape(tokens=len(piece), first=sid, head="last" if last else "none", logits=logits and last)
            self._run(shape, piece, "prefill")
        return self._results(1, logits)[0]

    def decode(self, tokens, steps, logits=False):
        """`steps` more tokens of each sequence, each the likeliest after the one before.

        Parameters
        ----------
        tokens : list of int
            The last of sequences 0 on.

        Returns
        -------
        list of list of (token, logits)
            Of each step, of each sequence.
        """
        self._run(Shape(sequences=len(tokens), steps=steps, logits=logits), tokens, "decode")
        found = self._results(steps * len(tokens), logits)
        return [found[at:at + len(tokens)] for at in range(0, len(found), len(tokens))]

    def logits(self, tokens):
        """What follows each token of a new sequence, which is closed again: float32, (tokens, vocabulary)."""
        most, found = rows_at_once(self.layout, "all"), []
        self.command(Opcode.ALLOC_SEQ, sid=0)
        self.lengths[0] = 0
        for at in range(0, len(tokens), most):
            piece = tokens[at:at + most]
            self._run(Shape(tokens=len(piece), head="all", logits=True), piece, "prefill")
            found += [logits for _, logits in self._results(len(piece), True)]
        self.command(Opcode.FREE, sid=0)
        return np.stack(found)

    def command(self, opcode, **arguments):
        """Give the KV cache a command.

        Raises
        ------
        DeviceError
            When it is refused.
        """
        word, at = Command(opcode, arguments).word, self.layout.at
        words = {f"word{n}": word >> 32 * n & 0xFFFFFFFF for n in range(4)}
        self._start(assemble(schedule(self.layout.chip, [
            Instruction(Heads.COMMAND, words),
            Instruction(Store.COPY, {"target": at["results"], "bytes": 8, "rows": 1})]),
            self.layout.chip.sequencer.instructions))
        status = Status(self.device.read(at["results"], 8)[1])
        if status:
            raise DeviceError(f"{opcode.name} of {arguments}: {status.name}")

    def _end(self, running, place):
        """A sequence has ended; the last takes its place."""
        self.command(Opcode.FREE, sid=place)
        last = running.pop()
        if place < len(running):
            self.command(Opcode.FORK, sid=len(running), target=place)
            self.lengths[place] = self.lengths[len(running)]
            self.command(Opcode.FREE, sid=len(running))
            running[place] = last

    def _run(self, shape, tokens, kind):
        pairs = np.zeros((len(tokens), self.layout.pick // 4), "<u4")
        pairs[:, 1] = tokens
        self.device.write(self.layout.at["tokens"], pairs.tobytes())
        own = range(shape.first, shape.first + shape.sequences)
        predicted = predict(self.layout, shape, [self.lengths.get(sid, 0) for sid in own]).cycles
        self.runs.append(Run(kind, shape, predicted, self._start(self._program(shape))))
        for sid in own:
            self.lengths[sid] = self.lengths.get(sid, 0) + shape.tokens * shape.steps

    def _start(self, image):
        self.device.write(self.layout.at["programs"], image)
        return self.device.run(self.layout.at["programs"], len(image) // BYTES)

    def _results(self, count, logits):
        layout, size = self.layout, 4 * self.layout.model.vocabulary
        rows = self.device.read(layout.at["results"], count * layout.result_pitch).reshape(count, -1)
        return [(int(row[4:8].view("<u4")[0]),
                 row[layout.picks:layout.picks + size].view("<f4") if logits else None) for row in rows]


def check(layout, prompts, count):
    """Refuse what cannot be: so many tokens after some prompts.

    Raises
    ------
    ModelError
        Prompts of nothing, too long, or of tokens that there are not; no room in the scratchpad for a token.
    """
    if not 1 <= count <= layout.context:
        raise ModelError(f"{count} tokens to come: must be 1 to {layout.context}, as context says")
    for number, prompt in enumerate(prompts):
        wrong = [token for token in prompt if not 0 <= token < layout.model.vocabulary]
        if wrong:
            raise ModelError(f"prompt {number}: token {wrong[0]} must be 0 to {layout.model.vocabulary - 1}")
        if not 1 <= len(prompt) <= layout.context - count + 1:
            raise ModelError(f"prompt {number} has {len(prompt)} tokens: must be 1 to {layout.context - count + 1} "
                             f"with {count} to come, as context = {layout.context}")
    rows_at_once(layout)
