# SPDX-License-Identifier: Apache-2.0

import os
import random
import re
from pathlib import Path

import pytest

from golden.config import Chip, ConfigError, KvCache, Matmul, Noc, NocClass, Vector, check_tile, load
from golden.families import FAMILIES
from hw.emit import Verilog
from hw.tile.tile import Tile

DEEP = "DEEP" in os.environ
CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_named_chips_load(path):
    assert load(path).name == path.stem


def test_derived_sizes():
    matmul = Matmul()
    assert (matmul.depth, matmul.row_bits, matmul.drain, matmul.groups, matmul.macs) == (32, 256, 8, 4, 1024)
    assert Matmul(family="fp4").row_bits == 128
    assert Matmul(family="fp4").mx and not Matmul(family="fp8").mx
    assert [Matmul(cols=cols).drain for cols in (2, 4, 12, 18, 32, 64)] == [2, 2, 2, 2, 8, 16]
    narrow = Matmul(cols=4, drain=1)
    assert (narrow.group, narrow.groups, narrow.turns, Chip(name="narrow", matmul=narrow).vector.lanes) == (2, 2, 4, 2)


@pytest.mark.parametrize("block_tokens, head_dim, format, beat, segment", [
    (16, 64, "fp8", 64, 33), (16, 128, "fp8", 64, 65), (16, 64, "bf16", 64, 64), (8, 32, "fp8", 64, 17),
    (16, 64, "fp8", 16, 132), (32, 64, "fp8", 32, 132)])
def test_segments_of_the_kv_cache(block_tokens, head_dim, format, beat, segment):
    """Scales, K and V in whole beats; a row shorter than a beat takes a whole one."""
    cache = KvCache(block_tokens=block_tokens, head_dim=head_dim, format=format, beat=beat, layers=3, kv_heads=5)
    assert cache.segment_beats(block_tokens) == segment and cache.block_bytes == 15 * segment * beat


@pytest.mark.parametrize("memory, request_order, reply_order", [
    ("none", "xy", "xy"), ("west", "yx", "xy"), ("east", "yx", "xy"), ("north", "xy", "yx"), ("south", "xy", "yx")])
def test_classes_of_the_network(memory, request_order, reply_order):
    """Neither requests nor replies run along the edge of the memories."""
    noc = Noc(memory=memory, depth=5, classes=(
        NocClass(name="ask", vcs=2), NocClass(name="tell", replies_to="ask"), NocClass(name="cast", multicast=True)))
    assert [noc.order(name) for name in ("ask", "tell", "cast")] == [request_order, reply_order, "xy"]
    assert [noc.segment(name) for name in ("ask", "tell", "cast")] == [255, 255, 3]
    assert [list(noc.channels(name)) for name in ("ask", "tell", "cast")] == [[0, 1], [2], [3]] and noc.vcs == 4
    assert Noc(memory="west", classes=(NocClass(name="ask", order="xy"),)).order("ask") == "xy"


def test_sections_are_values():
    assert Matmul() == Matmul(lanes=16) and hash(Matmul()) == hash(Matmul(lanes=16))
    assert repr(Matmul()) == repr(Matmul(drain=8))
    with pytest.raises(ValueError, match="frozen"):
        Matmul().lanes = 8


@pytest.mark.parametrize("text, sentence", [
    ("[matmul]\nlane = 3",
     "matmul.lane: unknown key; known here: family, lanes, rows, cols, acc_rows, drain, m_max, n_max, "
     "k_max, mx"),
    ("[vector]\nlanes = 3", "vector.lanes = 3: must be a power of two"),
    ("[vector]\nrow_max = 16", "vector.row_max = 16: must be an integer, 32 to 65536"),
    ("[matmull]\nlanes = 3", "matmull: unknown key; known here: name, matmul, vector, kvcache, attention, memory, "
     "sequencer, noc, dram"),
    ("matmul = 3", "matmul = 3: must be a table"),
    ("[kvcache]\nblocks = 1", "kvcache.blocks = 1: must be an integer, 2 to 65536"),
    ("[kvcache]\nblock_tokens = 12", "kvcache.block_tokens = 12: must be a power of two"),
    ("[kvcache]\nbeat = 48", "kvcache.beat = 48: must be a power of two"),
    ("[kvcache]\ntable = 16384\nblock_tokens = 64",
     "kvcache.block_tokens = 64: makes sequences of table x block_tokens = 1048576 tokens; there may be 1048575"),
    ("[kvcache]\nhead_dim = 60", "kvcache.head_dim = 60: must be a multiple of 8"),
    ('[kvcache]\nformat = "fp4"', 'kvcache.format = "fp4": must be "bf16" or "fp8"'),
    ('[kvcache]\npolicy = "mru"', 'kvcache.policy = "mru": must be "unhashed_head" or "lru_tail"'),
    ("[noc]\nwidth = 17", "noc.width = 17: must be an integer, 1 to 16"),
    ("[noc]\nwidth = 1\nheight = 1",
     "noc.height = 1: must be at least 2 with width = 1, as a node does not talk to itself"),
    ("[noc]\ndata = 96", "noc.data = 96: must be 64, 128, 256 or 512"),
    ("[noc]\nmemory = 'north-west'",
     'noc.memory = "north-west": must be "none", "north", "east", "south" or "west"'),
    ("[noc]\nclasses = 3", "noc.classes = 3: must be tables"),
    ("[noc]\nclasses = [3]", "noc.classes.0 = 3: must be tables"),
    ("[noc]\nclasses = []", "noc.classes: must have 1 to 4 virtual channels together, not 0"),
    ("[noc]\nclasses = [{name = 'a', vcs = 3}, {name = 'b', vcs = 2}]",
     "noc.classes: must have 1 to 4 virtual channels together, not 5"),
    ("[noc]\nclasses = [{name = 'a'}, {name = 'a'}]",
     'noc.classes: must have a name each: "a" is there twice'),
    ("[noc]\nclasses = [{name = 'a', replies_to = 'b'}]",
     'noc.classes: must have a class "b", as "a" replies to it'),
    ("[noc]\nclasses = [{}]", "noc.classes.0.name: must be a name of small letters, digits and _, in quotes"),
    ("[noc]\nclasses = [{name = 'a'}, {name = 'b', vcs = 5}]", "noc.classes.1.vcs = 5: must be an integer, 1 to 4"),
    ("[noc]\nclasses = [{name = 'a', width = 5}]",
     "noc.classes.0.width: unknown key; known here: name, vcs, order, multicast, reduce, replies_to"),
    ("[noc]\nclasses = [{name = 'a', order = 'zigzag'}]",
     'noc.classes.0.order = "zigzag": must be "xy", "yx" or "auto"'),
    ("[noc]\nclasses = [{name = 'a', vcs = 2, multicast = true}]",
     "noc.classes.0.multicast = true: needs vcs = 1, as a multicast has no other way to stay in order"),
    ("[noc]\nclasses = [{name = 'a', vcs = 2, reduce = true}]",
     "noc.classes.0.reduce = true: needs vcs = 1, as operands meet in order"),
    ("[noc]\nclasses = [{name = 'a', multicast = true, reduce = true}]",
     "noc.classes.0.reduce = true: needs multicast = false, as there are nothing but reductions in the class"),
    ("[noc]\nclasses = [{name = 'a'}, {name = 'b', reduce = true, replies_to = 'a'}]",
     'noc.classes.1.replies_to = "a": must be empty in a class of reductions'),
    ("[noc]\nclasses = [{name = 'a', replies_to = 'a'}]",
     "noc: packets could wait in a circle: (2, 0).S.0 -> (2, 1).L.0 -> (2, 1).N.0 -> (2, 0).L.0 -> (2, 0).S.0"),
    ('name = "A chip"', 'name = "A chip": must be a name of small letters, digits and _, in quotes'),
    ("[matmul]\nfamily = 8", "matmul.family = 8: must be a name of small letters, digits and _, in quotes"),
    ("[matmul]\nlanes = 0", "matmul.lanes = 0: must be an integer, 1 to 64"),
    ("[matmul]\nlanes = 4.0", "matmul.lanes = 4.0: must be an integer, 1 to 64"),
    ("[matmul]\nk_max = 65536", "matmul.k_max = 65536: must be an integer, 1 to 65535"),
    ("[matmul]\nacc_rows = 100", "matmul.acc_rows = 100: must be a power of two, 2 to 4096"),
    ("[matmul]\ncols = 12\ndrain = 5", "matmul.drain = 5: must be a power of two that divides cols = 12: 1, 2 or 4"),
    ("[matmul]\ncols = 5", "matmul.cols = 5: must be even, as a beat of 4-bit weights fills two columns"),
    ("[matmul]\nmx = 1", "matmul.mx = 1: must be true or false"),
    ("[matmul]\nmx = true\nrows = 4",
     "matmul.mx = true: needs lanes x rows = 32, one block of a shared scale, not 16 x 4"),
    ('[matmul]\nfamily = "fp4"\nrows = 4',
     "matmul.mx = true: needs lanes x rows = 32, one block of a shared scale, not 16 x 4"),
    ('[matmul]\nfamily = "int8"\nmx = true',
     "matmul.mx = true: must be false in family int8, which has no block scales"),
    ('[matmul]\nfamily = "fp4"\nlanes = 3\nrows = 5\nmx = false',
     "matmul.rows = 5: must be even with lanes = 3 in family fp4, as beats are whole bytes"),
])
def test_refusals(tmp_path, text, sentence):
    path = tmp_path / "chip.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^{re.escape(f'{path}: {sentence}')}$"):
        load(path)


def test_unknown_family_is_refused(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text('[matmul]\nfamily = "fp16"')
    *some, last = (f'"{name}"' for name in FAMILIES)
    with pytest.raises(ConfigError, match=f'matmul.family = "fp16": must be {", ".join(some)} or {last}$'):
        load(path)


def test_lanes_of_uni_are_fours(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "uni", FAMILIES["fp8"])
    path = tmp_path / "chip.toml"
    path.write_text('[matmul]\nfamily = "uni"\nlanes = 12')
    with pytest.raises(ConfigError, match=r"matmul.lanes = 12: must be 4, 8, 16, 32 or 64 in family uni, "
                                          r"where four lanes make a BF16 product$"):
        load(path)


def test_every_problem_has_its_line(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text("[matmul]\ncols = 0\nlanes = -1\nacc_rows = 3\nspeed = 9")
    with pytest.raises(ConfigError) as error:
        load(path)
    assert [line.split(" ")[1] for line in str(error.value).splitlines()] == [
        "matmul.lanes", "matmul.cols", "matmul.acc_rows", "matmul.speed:"]


def test_broken_toml_names_the_file(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text("[matmul\n")
    with pytest.raises(ConfigError, match=r"chip.toml: not TOML: .*line 1"):
        load(path)


def test_chip_needs_nothing_but_a_name():
    assert Chip(name="plain").matmul == Matmul()
    assert Chip(name="plain").vector == Vector(lanes=8)


TILE = {"kvcache": {"beat": 16}}


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"matmul": {"lanes": 12}}, "matmul.rows = 2: must be such that lanes x rows is a power of two, with lanes = 12"),
    ({"kvcache": {"beat": 32}}, "kvcache.beat = 32: must be memory.channel = 16"),
    ({"sequencer": {"patience": 16383}},
     "kvcache.patience = 4096: must be 4095 or less, a quarter of sequencer.patience = 16383"),
    ({"memory": {"prefetch": 512}},
     "memory.prefetch = 512: must be 1024 or more: two bursts, and two beats of weights"),
    ({"memory": {"prefetch": 1 << 20, "burst": 1, "channel": 8}, "kvcache": {"beat": 8},
      "matmul": {"lanes": 2, "drain": 2}},
     "memory.prefetch = 1048576: must be 524288 or less"),
    ({"memory": {"scratchpad": 4096, "banks": 16}, "matmul": {"cols": 256, "drain": 64}},
     "memory.scratchpad = 4096: must be 8192 or more: two words of 256 bytes in each of 16 banks"),
])
def test_tiles_that_cannot_be(changes, sentence):
    with pytest.raises(ConfigError) as error:
        check_tile(Chip(name="odd", **TILE | changes))
    assert f"odd: {sentence}" in str(error.value).splitlines()


def odd(rng):
    """Sections of a chip, each value such that there is a block with it."""
    memory = {"channel": rng.choice([8, 16, 32, 64, 128]), "prefetch": rng.choice([512, 1024, 1 << 14, 1 << 20]),
              "burst": rng.choice([1, 4, 32]), "scratchpad": rng.choice([4096, 1 << 14]),
              "banks": rng.choice([1, 2, 16])}
    return {
        "matmul": {"family": rng.choice([*FAMILIES]), "lanes": rng.choice([1, 2, 3, 4, 8, 16, 32]), "mx": False,
                   "rows": rng.choice([1, 2, 4, 6]), "cols": rng.choice([2, 6, 8, 12, 32]), "m_max": rng.choice([1, 7]),
                   "n_max": rng.choice([1, 9]), "k_max": rng.choice([1, 33, 512]), "acc_rows": rng.choice([2, 8, 64])},
        "vector": {"lanes": rng.choice([2, 8, 32]), "row_max": rng.choice([32, 256])},
        "kvcache": {"blocks": rng.choice([2, 3, 17]), "sequences": rng.choice([1, 2, 5]), "table": rng.choice([1, 3]),
                    "block_tokens": rng.choice([1, 2, 16]), "layers": rng.choice([1, 3]),
                    "kv_heads": rng.choice([1, 3]), "head_dim": rng.choice([8, 40, 64]),
                    "format": rng.choice(["fp8", "bf16"]), "lanes": rng.choice([1, 2, 8]),
                    "buffer": rng.choice([16, 64]), "transfers": rng.choice([4, 5]),
                    "beat": rng.choice([memory["channel"]] * 4 + [64])},
        "attention": {"group": rng.randrange(1, 9)}, "memory": memory,
        "sequencer": {"instructions": rng.choice([8, 64]), "queue": rng.choice([2, 4, 8])}}


def test_odd_tiles():
    """Each is refused, or its blocks can be built; with `DEEP` all of its Verilog is."""
    rng, built = random.Random(0), 0
    for _ in range(150):
        sections = odd(rng)
        try:
            chip = Chip(name="odd", **sections)
            check_tile(chip)
        except ValueError:
            continue
        tile = Tile(chip)
        assert len(tile.parts) == 11, sections
        built += 1
        if DEEP and built <= 10:
            assert Verilog(tile).text
    assert built > 15
