# SPDX-License-Identifier: Apache-2.0
"""The network's reference against computations of its own."""

import random
from collections import Counter, defaultdict, deque
from itertools import permutations, product
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from golden.config import Noc, NocClass, load
from golden.noc import (
    DeadlockError,
    Join,
    Mesh,
    Message,
    Packet,
    check,
    check_groups,
    combine,
    dependencies,
    flits,
    group,
    middle,
    outputs,
    packets,
    refusal,
    step,
    tree,
)
from golden.packet import DIRECTIONS, EXTRA, FORKS, GROUP, HEADER, ORDER, TURNS, Error, Port, Reduction, bucket, flit
from golden.paging import unpack

ORDERS = ("xy", "yx")
CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))
CLASSES = (NocClass(name="request"), NocClass(name="reply", replies_to="request"),
           NocClass(name="cast", multicast=True), NocClass(name="sums", reduce=True))
N, E, S, W, L = Port


def nodes(width, height):
    return list(product(range(width), range(height)))


def straight(order, source, dst):
    """The nodes on the way from one to the other, one dimension after the other."""
    way = [source]
    for axis in (0, 1) if order == "xy" else (1, 0):
        while way[-1][axis] != dst[axis]:
            here = list(way[-1])
            here[axis] += 1 if dst[axis] > here[axis] else -1
            way.append(tuple(here))
    return way


def rectangle(rng, width, height):
    """Corner and extent of one on the mesh."""
    xs, ys = (sorted(rng.choices(range(size), k=2)) for size in (width, height))
    return (xs[0], ys[0]), (xs[1] - xs[0], ys[1] - ys[0])


def inside(node, dst, ext):
    return all(low <= at <= low + more for at, low, more in zip(node, dst, ext, strict=True))


# What is on the wires

def test_layouts():
    assert sum(HEADER.values()) == EXTRA == 64 and sum(GROUP.values()) == 10
    assert sum(flit(256).values()) == 256 + 8
    assert sorted(ORDER) == sorted(FORKS["xy"]) == sorted(FORKS["yx"]) == list(Port)
    assert all(port.opposite.opposite == port for port in Port)
    assert all(step(step((3, 3), port), port.opposite) == (3, 3) for port in DIRECTIONS)


def test_buckets_are_spread_evenly():
    for size in (4, 8, 16):
        assert set(Counter(bucket(x, y) for x in range(size) for y in range(size)).values()) == {size * size // 8}


def test_packets_of_a_message():
    noc, rng = Noc(classes=CLASSES, data=128), random.Random(1)
    for kind, length in product(("request", "cast"), (0, 1, 3, 4, 255, 256, 600)):
        words = tuple(rng.getrandbits(128) for _ in range(length))
        message = Message((0, 1), kind, (2, 3), words=words, op=5, tag=77, user=99, reserve=12, chip=2, extra=1 << 63)
        cut = packets(noc, message)
        most = 2 if kind == "cast" else 255
        assert [len(each.payload) for each in cut] == [
            *[most] * ((length - 1) // most), length - max(length - 1, 0) // most * most]
        assert sum((each.payload for each in cut), ()) == words
        for each in cut:
            assert each.header == {
                "dst_x": 2, "dst_y": 3, "ext_x": 0, "ext_y": 0, "src_x": 0, "src_y": 1, "chip": 2, "op": 5,
                "tag": 77, "length": len(each.payload), "last": each is cut[-1], "reserve": 12, "user": 99}
            assert Packet.read(each.words) == each and each.words[0] >> 64 == 1 << 63


def test_every_flipped_bit_is_odd():
    packet = Packet.read((random.Random(2).getrandbits(64), 7, 8))

    def odd(fields, vc):
        return sum(value.bit_count() for value in (*fields.values(), vc)) % 2

    sent = list(flits(packet, 2, (N, L)))
    assert [(each["head"], each["tail"], each["route"]) for each in sent] == [(1, 0, 17), (0, 0, 0), (0, 1, 0)]
    assert [each["data"] for each in sent] == list(packet.words) and not any(odd(each, 2) for each in sent)
    assert all(odd(each, 3) for each in sent)
    for name, bits in flit(64).items():
        assert all(odd(sent[0] | {name: sent[0][name] ^ 1 << bit}, 2) for bit in range(bits))


@pytest.mark.parametrize("message, error", [
    (Message((0, 0), "request", (3, 3)), Error.NONE),
    (Message((0, 0), "request", (4, 3)), Error.OUTSIDE),
    (Message((0, 0), "cast", (2, 3), (1, 1)), Error.OUTSIDE),
    (Message((0, 0), "request", (2, 2), (1, 1)), Error.RECTANGLE),
    (Message((1, 2), "cast", (1, 2)), Error.SELF),
    (Message((1, 2), "cast", (1, 2), (1, 0)), Error.NONE),
    (Message((1, 2), "sums", (1, 2), tag=3), Error.NONE),
    (Message((1, 2), "sums", (1, 2), tag=4), Error.NO_GROUP),
    (Message((0, 0), "request", (3, 3), reserve=64), Error.NONE),
    (Message((0, 0), "request", (3, 3), reserve=65), Error.RESERVE),
])
def test_refusals(message, error):
    assert refusal(Noc(classes=CLASSES), message) == error
    assert error == Error.NONE or not Mesh(Noc(classes=CLASSES)).run([message])


# Ways

@pytest.mark.parametrize("order", ORDERS)
def test_ways_are_straight_and_shortest(order):
    grid = nx.grid_2d_graph(5, 4)
    for source, dst in permutations(nodes(5, 4), 2):
        way = tree(order, source, dst)
        assert list(way) == straight(order, source, dst)
        assert len(way) == nx.shortest_path_length(grid, source, dst) + 1
        assert all(len(ports) == 1 for _, ports in way.values()) and way[dst][1] == (L,)


@pytest.mark.parametrize("order", ORDERS)
def test_turns_are_those_that_ways_take(order):
    taken = {(entry, port) for source, dst in permutations(product(range(3), range(3)), 2)
             for entry, ports in tree(order, source, dst).values() for port in ports}
    assert taken == {(entry, port) for entry, ports in TURNS[order].items() for port in ports}


@pytest.mark.parametrize("order", ORDERS)
def test_a_rectangle_gets_one_copy_each(order):
    rng = random.Random(3)
    for _ in range(1000):
        size = rng.randint(2, 16), rng.randint(1, 16)
        source, (dst, ext) = rng.choice(nodes(*size)), rectangle(rng, *size)
        reached, copies, todo = Counter(), Counter(), deque([(source, L)])
        while todo:
            here, entry = todo.popleft()
            reached[here] += 1
            for port in outputs(order, entry, here, dst, ext):
                copies[here] += port == L
                if port != L:
                    todo.append((step(here, port), port.opposite))
        members = [node for node in nodes(*size) if inside(node, dst, ext) and node != source]
        assert +copies == Counter(members)
        assert reached == Counter(set().union({source}, *(straight(order, source, member) for member in members)))
        assert reached.keys() == tree(order, source, dst, ext).keys()


def test_a_way_that_no_packet_takes_has_no_outputs():
    assert outputs("xy", E, (1, 1), (2, 1)) == outputs("xy", N, (1, 1), (0, 2)) == ()
    assert outputs("xy", L, (1, 1), (1, 1)) == outputs("yx", L, (1, 1), (1, 1)) == ()


# Reductions

FLOATS = {Reduction.SUM_FP32, Reduction.MAX_FP32}


def operate(op, a, b):
    """Two operands, as numpy and Python have it."""
    if op in FLOATS:
        x, y = (np.array(code, dtype=np.uint32).view(np.float32) for code in (a, b))
        return int((x + y if op == Reduction.SUM_FP32 else np.maximum(x, y)).view(np.uint32))
    if op == Reduction.SUM_INT32:
        return (a + b) % (1 << 32)
    return max(a, b, key=lambda code: code - (code >> 31 << 32))


def lanes(rng, op, count):
    """Operands whose sums and maxima no rule of ours but the order touches: normal numbers, no NaN."""
    if op in FLOATS:
        return [int(np.float32(rng.uniform(-1, 1) * 2.0 ** rng.randint(-20, 20)).view(np.uint32)) for _ in range(count)]
    return [rng.choice([rng.getrandbits(32), 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]) for _ in range(count)]


def by_hand(order, values, root, op):
    """The sum along the ways of the members, each router's operands in their fixed places."""
    children = defaultdict(set)
    for member in values:
        way = straight(order, member, root)
        for here, after in zip(way, way[1:], strict=False):
            children[after].add(here)

    def total(here):
        x, y = here
        parts = [values[here]] if here in values else []
        parts += [total(child) for child in ((x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1))
                  if child in children[here]]
        return _fold(op, parts)

    return total(root)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("op", Reduction)
def test_reductions(order, op):
    rng = random.Random(f"{order} {op}")
    for _ in range(50):
        noc = Noc(width=rng.randint(2, 6), height=rng.randint(1, 6), data=rng.choice([64, 128, 256]),
                  classes=(NocClass(name="sums", reduce=True),))
        every = nodes(noc.width, noc.height)
        members = rng.sample(every, rng.randint(1, len(every)))
        root = rng.choice([None, rng.choice(every)])
        joins = group(order, members, op, root)
        root = root or middle(members)
        size, length = noc.data // 32, rng.randint(0, 3)
        sent = {member: lanes(rng, op, size * length) for member in members}
        messages = [Message(member, "sums", root, words=tuple(
            sum(lane << 32 * index for index, lane in enumerate(sent[member][first:first + size]))
            for first in range(0, size * length, size)), user=index) for index, member in enumerate(members)]
        (key, (packet,)), = Mesh(noc, {0: joins}).run(messages).items()
        assert key == (root, "sums", 0) and packet.header["user"] < len(members)
        got = [word >> 32 * index & 0xFFFFFFFF for word in packet.payload for index in range(size)]
        assert got == [by_hand(order, {member: sent[member][index] for member in members}, root, op)
                       for index in range(size * length)]
        if op not in FLOATS:
            assert got == [_fold(op, [sent[member][index] for member in members]) for index in range(size * length)]


def _fold(op, values):
    first, *others = values
    for each in others:
        first = operate(op, first, each)
    return first


def test_the_order_of_a_sum_shows():
    """Large numbers cancel before a small one comes; a number that is alone keeps its subnormal bits."""
    one, huge, tiny = 0x3F800000, 0x7149F2CA, 0x00000001
    word = {name: np.array([code], dtype=np.uint32) for name, code in
            {"one": one, "huge": huge, "minus": huge | 1 << 31, "tiny": tiny}.items()}
    assert combine(Reduction.SUM_FP32, {E: word["huge"], L: word["minus"], N: word["one"]}) == one
    assert combine(Reduction.SUM_FP32, {N: word["huge"], L: word["one"], S: word["minus"]}) == 0
    assert combine(Reduction.SUM_FP32, {S: word["tiny"]}) == tiny
    assert combine(Reduction.SUM_FP32, {S: word["tiny"], L: word["tiny"]}) == 0


def test_registers_of_a_group():
    joins = group("xy", nodes(3, 1), Reduction.MAX_FP32)
    assert joins == {(0, 0): Join((L,), E, 3), (1, 0): Join((L, W, E), L, 3), (2, 0): Join((L,), W, 3)}
    assert unpack(GROUP, joins[1, 0].word) == {"inputs": 0b11010, "output": 4, "op": 3}


def test_the_middle_is_the_nearest_to_the_farthest():
    assert [middle(list(product(range(size), repeat=2))) for size in (2, 4, 8)] == [(0, 0), (1, 1), (3, 3)]
    rng, grid = random.Random(4), nx.grid_2d_graph(6, 6)
    for _ in range(50):
        members = rng.sample(list(grid), rng.randint(1, 8))
        far = {node: max(nx.shortest_path_length(grid, node, member) for member in members) for node in grid}
        assert far[middle(members)] == min(far.values())


def test_operands_that_do_not_belong_together_are_refused():
    noc = Noc(classes=(NocClass(name="sums", reduce=True),))
    mesh = Mesh(noc, {0: group("xy", [(0, 0), (1, 0)], Reduction.SUM_INT32)})
    with pytest.raises(ValueError, match=r"^group 0 has members \[\(0, 0\), \(1, 0\)\], not \[\(0, 0\)\]$"):
        mesh.run([Message((0, 0), "sums", (0, 0), words=(1,))])
    with pytest.raises(ValueError, match=r"^group 0 has packets of different lengths$"):
        mesh.run([Message((0, 0), "sums", (0, 0), words=(1,)), Message((1, 0), "sums", (0, 0), words=(1, 2))])


def stuck(rng, groups, room=2):
    """Whether reductions, of two packets each, started in one order by all, come to a standstill.

    A link has `room` for packets. In a router a packet goes along `ORDER`: over the inputs that its group does
    not use, and together with what comes by those that it does. It then stays until there is nothing ahead of
    it, so the next input but not the one after may hold another.
    """
    links, chains = defaultdict(deque), defaultdict(lambda: [None] * len(ORDER))
    for tag, joins in 2 * list(groups.items()):
        for here, join in joins.items():
            if L in join.inputs:
                links[here, L].append(tag)

    def moves():
        for here in {here for joins in groups.values() for here in joins}:
            chain = chains[here]
            for place, port in enumerate(ORDER):
                tag = links[here, port][0] if links[here, port] else None
                if tag is not None and chain[place] is None and here in groups[tag]:
                    inputs = groups[tag][here].inputs
                    at = inputs.index(port)
                    below = ORDER.index(inputs[at - 1]) if at else None
                    if not at or chain[below] == tag and not any(
                            each is not None for each in chain[below + 1:place]):
                        yield here, place, below, tag
                held = chain[place]
                if held is not None and groups[held][here].inputs[-1] == port and not any(
                        each is not None for each in chain[place + 1:]):
                    out = groups[held][here].output
                    to = None if out == L else (step(here, out), out.opposite)
                    if to is None or len(links[to]) < room:
                        yield here, place, to, None

    left = sum(2 * len(joins) for joins in groups.values())
    while choices := list(moves()):
        here, place, other, tag = rng.choice(choices)
        chain = chains[here]
        if tag is None:
            if other:
                links[other].append(chain[place])
            chain[place] = None
            left -= 1
        else:
            links[here, ORDER[place]].popleft()
            chain[place] = tag
            if other is not None:
                chain[other] = None
    return bool(left)


def test_groups_that_could_cross_are_refused():
    """Two packets reach (2, 1) from the west and two from the east, of either group, in any order."""
    groups = {0: group("xy", [(0, 1), (4, 1)], Reduction.SUM_INT32, (2, 1)),
              1: group("xy", [(1, 1), (3, 1)], Reduction.SUM_INT32, (2, 1))}
    with pytest.raises(DeadlockError, match=r"^groups 0 and 1 meet at \(\d, 1\), where nothing keeps them in order$"):
        check_groups(groups)
    rng = random.Random(5)
    assert {stuck(rng, groups) for _ in range(50)} == {False, True}


def test_groups_that_are_allowed_end():
    rng, verdicts, mesh = random.Random(6), Counter(), list(product(range(3), range(3)))
    for _ in range(500):
        if rng.random() < 0.5:
            members = [rng.sample(mesh, rng.randint(2, 9)) for _ in range(3)]
        else:
            corners = [rectangle(rng, 3, 3) for _ in range(3)]
            members = [[node for node in mesh if inside(node, *corner)] for corner in corners]
        groups = {tag: group("xy", each, Reduction.SUM_INT32) for tag, each in enumerate(members)}
        try:
            check_groups(groups)
        except DeadlockError:
            verdicts["refused"] += 1
        else:
            verdicts["allowed"] += 1
            assert not any(stuck(rng, groups) for _ in range(5))
    assert min(verdicts.values()) > 50, verdicts


# Deadlock

@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_named_chips_have_no_circle(path):
    noc = load(path).noc
    check(noc)
    graph = dependencies(noc)
    links = 2 * ((noc.width - 1) * noc.height + noc.width * (noc.height - 1)) + noc.width * noc.height
    assert len(graph) == links * noc.vcs and nx.is_directed_acyclic_graph(graph)


def test_every_choice_of_orders_has_no_circle():
    for width, height, *orders in [(4, 3, *orders) for orders in product(ORDERS, repeat=3)] + [(1, 5, *ORDERS, "xy")]:
        Noc(width=width, height=height, classes=(
            NocClass(name="request", order=orders[0]),
            NocClass(name="reply", order=orders[1], replies_to="request"),
            NocClass(name="cast", order=orders[2], multicast=True),
            NocClass(name="sums", order=orders[0], reduce=True)))


@pytest.mark.parametrize("order", ORDERS)
def test_dependencies_are_those_of_all_trees(order):
    """Of all packets to all rectangles: from a channel to the next, and from an output to a later one."""
    noc = Noc(width=3, height=3, classes=(NocClass(name="cast", order=order, multicast=True),))
    expected = nx.DiGraph()
    for source, (x, y), (u, v) in product(nodes(3, 3), repeat=3):
        if u < x or v < y:
            continue
        for here, (entry, ports) in tree(order, source, (x, y), (u - x, v - y)).items():
            assert list(ports) == sorted(ports, key=FORKS[order].index)
            expected.add_edges_from(((step(here, entry), entry.opposite, 0), (here, port, 0))
                                    for port in ports if entry != L)
            expected.add_edges_from(((here, a, 0), (here, b, 0)) for a in ports for b in ports
                                    if FORKS[order].index(a) < FORKS[order].index(b))
    assert nx.utils.graphs_equal(nx.DiGraph(sorted(expected.edges)), nx.DiGraph(sorted(dependencies(noc).edges)))


def circle(error, graph):
    """The channels that the error names, each waiting for the next."""
    by_name = {f"({x}, {y}).{Port(port).name}.{vc}": ((x, y), port, vc) for (x, y), port, vc in graph}
    names = [by_name[name] for name in str(error.value).removeprefix("packets could wait in a circle: ").split(" -> ")]
    assert names[0] == names[-1] and len(names) > 2
    assert all(edge in graph.edges for edge in zip(names, names[1:], strict=False))
    return names


def test_a_choice_of_ways_is_refused():
    """Packets that go either way first, on one virtual channel."""
    def either(order, entry, here, dst):
        return {*outputs("xy", L, here, dst), *outputs("yx", L, here, dst)} or {L}

    noc = Noc(width=3, height=3)
    with pytest.raises(DeadlockError) as error:
        check(noc, either)
    assert len({port for _, port, _ in circle(error, dependencies(noc, either))}) == 4
    with pytest.raises(DeadlockError, match=(
            r"^packets could wait in a circle: \(0, 0\).E.0 -> \(1, 0\).S.0 -> \(1, 1\).W.0 -> \(0, 1\).N.0 -> "
            r"\(0, 0\).E.0$")):
        check(Noc(width=2, height=2, classes=(NocClass(name="data"),)), either)


def test_multicasts_that_move_on_early_are_refused():
    """One from (1, 1) has its way north at (2, 1) and waits for the west; one from (2, 1) the other way round."""
    noc = Noc(classes=(NocClass(name="cast", order="xy", multicast=True),))
    graph = dependencies(noc, early=True)
    assert graph.has_edge(((2, 1), N, 0), ((1, 1), W, 0)) and graph.has_edge(((1, 1), W, 0), ((2, 1), N, 0))
    with pytest.raises(DeadlockError) as error:
        check(noc, early=True)
    circle(error, graph)
    check(noc)


# The whole

def test_what_arrives():
    rng = random.Random(7)
    for _ in range(20):
        noc = Noc(width=rng.randint(2, 5), height=rng.randint(2, 5), classes=CLASSES, memory="west")
        every, messages = nodes(noc.width, noc.height), []
        for index in range(100):
            kind = rng.choice(["request", "reply", "cast"])
            dst, ext = rectangle(rng, noc.width, noc.height)
            messages.append(Message(
                rng.choice(every), kind, dst, ext if kind == "cast" else (0, 0), op=rng.randrange(16),
                user=index, words=tuple(rng.getrandbits(64) for _ in range(rng.choice([0, 1, 3, 5])))))
        expected = defaultdict(list)
        for message in messages:
            for node in every:
                if inside(node, message.dst, message.ext) and node != message.source:
                    expected[node, message.kind, message.source].append((message.user, message.words))
        arrived = Mesh(noc).run(messages)
        assert arrived.keys() == expected.keys()
        for key, got in arrived.items():
            found, words = [], ()
            for packet in got:
                words += packet.payload
                if packet.header["last"]:
                    found.append((packet.header["user"], words))
                    words = ()
            assert found == expected[key] and not words


@pytest.mark.parametrize("size", [2, 4, 8])
def test_all_reduce(size):
    """A sum to the middle and from there to all: everyone has the bits of the same sum."""
    noc = Noc(width=size, height=size, classes=CLASSES)
    rng, members = random.Random(size), nodes(size, size)
    sent = {member: tuple(rng.getrandbits(64) for _ in range(300)) for member in members}
    mesh = Mesh(noc, {2: group(noc.order("sums"), members, Reduction.SUM_INT32)})
    root = middle(members)
    totals = mesh.run([Message(member, "sums", root, words=sent[member], tag=2) for member in members])
    words = sum((packet.payload for packet in totals[root, "sums", 2]), ())
    assert words == tuple(sum((sum(word >> shift & 0xFFFFFFFF for word in column) % (1 << 32)) << shift
                              for shift in (0, 32)) for column in zip(*sent.values(), strict=True))
    spread = mesh.run([Message(root, "cast", (0, 0), (size - 1, size - 1), words)])
    assert {node: sum((packet.payload for packet in got), ()) for (node, _, _), got in spread.items()} == dict.fromkeys(
        set(members) - {root}, words)
