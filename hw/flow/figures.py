# SPDX-License-Identifier: Apache-2.0
"""Measured figures: one form for every command that prints numbers."""

import json

__all__ = ["dump", "figure"]

_SENSES = {">=": lambda value, goal: value >= goal, "<=": lambda value, goal: value <= goal,
           "==": lambda value, goal: value == goal}


def figure(name, value, unit, how, goal=None, sense=None):
    """One figure.

    Parameters
    ----------
    name : str
        `block.figure.case`; stable, since reports and documents look figures up by it.
    value : number
    unit : str
    how : str
        What produced the value, in a few words.
    goal : number
        What it should reach, if anything.
    sense : str
        `>=`, `<=` or `==`: how value and goal should compare.

    Returns
    -------
    dict
        With `holds`, which is None without a goal.
    """
    if goal is not None and sense not in _SENSES:
        raise ValueError(f"figure: sense must be one of {', '.join(_SENSES)}, not {sense!r}")
    holds = None if goal is None else bool(_SENSES[sense](value, goal))
    return {"name": name, "value": value, "unit": unit, "goal": goal, "sense": sense, "holds": holds,
            "how": how}


def dump(figures):
    """The figures as one JSON object."""
    return json.dumps({"figures": figures}, indent=1)
