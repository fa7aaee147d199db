# SPDX-License-Identifier: Apache-2.0
"""What crosses between the sequencer and its engines."""

from amaranth.lib import data

from golden.isa import FORMS

__all__ = ["completion", "instruction", "most"]


def most(engine):
    """Body words of an engine's instructions, at most."""
    return max(map(len, FORMS[engine].values()))


def instruction(words):
    """What an engine is to do: body words with their registers added; those its form lacks are zeros."""
    return data.StructLayout({"opcode": 5, "words": data.ArrayLayout(32, words)})


def completion(error=8):
    """An engine is done with its oldest instruction; an error of 0 is none."""
    return data.StructLayout({"error": error})
