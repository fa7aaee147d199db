# SPDX-License-Identifier: Apache-2.0
"""One attention head over a sentence, on the simulated unit: what it looks at, and what it guesses.

An induction head, made by hand: a character's query is the last three characters, a token's key the three before
it, its value the token itself. So each character looks at what followed the same characters before, and guesses that
this comes next. The first token is one that all look at when there is nothing better, and has no value.

What the hardware looks at is read off it: with unit vectors as values its results are the weights of the tokens.
"""

from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO

import numpy as np

from golden.formats import FP32, decode
from scripts.measure import distance
from sim.attention import Job, run
from sw.attention import Mask, gather, head, reference

__all__ = ["Outcome", "TEXT", "attend", "operands"]

TEXT = ("peter piper picked a peck of pickled peppers; a peck of pickled peppers peter piper picked; "
        "if peter piper picked a peck of pickled peppers, where's the peck of pickled peppers peter piper picked?")
CONTEXT = 6.0, 4.0, 3.0     # scores for the last character, the one before, and the third, where they are alike
SINK = 6.0                  # score of the first token


@dataclass(frozen=True)
class Outcome:
    """What came of it; results of the RTL are golden's on every bit.

    Attributes
    ----------
    kv : golden.config.KvCache
    group : int
    text : str
        A token for each character.
    weights, exact : array (tokens, tokens)
        What each token's query looks at: on the RTL, in float64.
    rows, exact_rows : array (tokens, head_dim)
    guesses, exact_guesses : str
        What comes next.
    results, cycles, beats : int
        Of the head alone, without the unit vectors: results compared, cycles, those in which a beat was taken.
    """

    kv: object
    group: int
    text: str
    weights: np.ndarray
    exact: np.ndarray
    rows: np.ndarray
    exact_rows: np.ndarray
    guesses: str
    exact_guesses: str
    results: int
    cycles: int
    beats: int

    @property
    def error(self):
        """`distance` of the rows from float64's."""
        return distance(self.rows, self.exact_rows)

    @property
    def off(self):
        """The largest difference of a weight from float64's."""
        return np.abs(self.weights - self.exact).max()

    @property
    def right(self):
        """Next characters that are guessed right: on the RTL, and in float64."""
        return tuple(sum(guess == next for guess, next in zip(each, self.text[1:], strict=False))
                     for each in (self.guesses, self.exact_guesses))

    @property
    def same(self):
        """Guesses that are float64's."""
        return sum(one == other for one, other in zip(self.guesses, self.exact_guesses, strict=True))


def operands(text, size):
    """Queries, keys, values (tokens, size), and the values of all characters that there are."""
    rng, letters = np.random.default_rng(0), sorted(set(text))
    part = (size - 1) // len(CONTEXT)
    marks, values = (each / np.linalg.norm(each, axis=1, keepdims=True)
                     for each in (rng.standard_normal((len(letters), width)) for width in (part, size)))
    place = [letters.index(letter) for letter in text]
    q, k = np.zeros((2, len(text), size))
    for n, score in enumerate(CONTEXT):
        own = slice(n * part, (n + 1) * part)
        q[n:, own] = score * marks[place[:len(text) - n]]
        k[n + 1:, own] = marks[place[:len(text) - n - 1]]
    q[:, -1], k[0, -1] = SINK, 1
    v = values[place]
    v[0] = 0
    return q, k, v, dict(zip(letters, values, strict=True))


def attend(kv, group, tell):
    """The `Outcome` on a unit of such a cache and group; `tell` is given a line of what is being done."""
    text = TEXT[:kv.table * kv.block_tokens]
    q, k, v, letters = operands(text, kv.head_dim)
    tokens, mask = len(text), Mask.of(len(text), len(text), positions=np.arange(len(text)))
    units = np.eye(tokens, -(-tokens // kv.head_dim) * kv.head_dim)
    values = [v, *np.split(units, units.shape[1] // kv.head_dim, axis=1)]
    passes = [head(kv, q, k, each, scale=1, mask=mask).passes(group) for each in values]
    tell("simulating a head")
    with redirect_stdout(StringIO()):
        runs, _ = run(Job(kv, group, [each for own in passes for each in own]))
    count = len(passes[0])
    found = [decode(FP32, gather([each.attended for each in runs[at:at + count]]).rows)
             for at in range(0, len(runs), count)]
    exact = [reference(q, k, each, scale=1, mask=mask) for each in values]
    weights = [np.concatenate(each[1:], axis=1)[:, :tokens] for each in (found, exact)]
    guesses = ["".join(max(letters, key=lambda letter, row=row: row @ letters[letter]) for row in rows)
               for rows in (found[0], exact[0])]
    beats = [beat for each in runs[:count] for beat in each.beats]
    return Outcome(kv, group, text, *weights, found[0], exact[0], *guesses, found[0].size,
                   runs[count - 1].results[-1] - beats[0] + 1, len(beats))
