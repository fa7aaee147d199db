# SPDX-License-Identifier: Apache-2.0
"""What is proven, and at which size.

Control does not know how wide data are or how far counters go, so blocks are as small as they can be
with every case of theirs in it: several blocks along M, N and K, two groups of columns, a last block in
two parts, all kinds of sums.
"""

from golden.config import KvCache, Matmul
from hw.axi import Bursts, Port, Reads, Writes
from hw.fetch import Fetch
from hw.kvcache.counters import Counters
from hw.kvcache.dispatcher import Dispatcher
from hw.kvcache.runs import Runs, Tags
from hw.kvcache.store import Store
from hw.matmul.drain import Drain
from hw.matmul.engine import Engine
from hw.matmul.parameters import Parameters
from hw.matmul.sequencer import Loader, Sequencer
from hw.matmul.walker import Walker
from hw.stream import Buffer, DeepQueue, Queue
from sim.formal import (
    attention,
    board,
    channel,
    chiplink,
    flow,
    heads,
    interface,
    kvcache,
    memory,
    noc,
    program,
    queries,
    reduce,
    vector,
)
from sim.formal.axi import BurstsRules, PortRules, ReadsRules, WritesRules
from sim.formal.counters import CountersFromAnywhere
from sim.formal.drain import DrainRules
from sim.formal.engine import EngineRules
from sim.formal.fetch import FetchRules
from sim.formal.parameters import ParametersRules
from sim.formal.prove import Task
from sim.formal.sequencer import LoaderRules, SequencerRules
from sim.formal.store import DispatcherRules, RunsRules, StoreRules, TagsRules
from sim.formal.stream import DeepFifo, Fifo
from sim.formal.walker import WalkerRules

__all__ = ["QUICK", "TASKS", "config"]


def config(family="fp8", **sizes):
    """The smallest engine of a family that has every case."""
    lanes = 16 if family == "fp4" else 4 if family == "uni" else 1
    return Matmul(**{"family": family, "lanes": lanes, "rows": 2, "cols": 4, "acc_rows": 4, "drain": 2,
                     "m_max": 8, "n_max": 8, "k_max": 4 * lanes, **sizes})


TINY = Matmul(family="fp8", lanes=1, rows=1, cols=2, acc_rows=2, drain=2, m_max=2, n_max=2, k_max=1)
ONE_LANE = config(cols=2, drain=1)
STORE = KvCache(blocks=3, sequences=2, table=2, block_tokens=2, layers=2, kv_heads=1, head_dim=8, beat=8, lanes=1,
                buffer=16, transfers=4, host_blocks=2, patience=100)
ARITHMETIC = ("columns_*", "lane_*")
WATCHED = {Walker: WalkerRules, Loader: LoaderRules, Sequencer: SequencerRules, Fetch: FetchRules,
           Parameters: ParametersRules, Drain: DrainRules}

QUICK = [
    Task(Queue(2, 1), Fifo),
    Task(Queue(2, 3), Fifo),
    Task(Buffer(2), Fifo),
    Task(DeepQueue(2, 3), DeepFifo),
    Task(Loader(config()), LoaderRules),
    Task(Sequencer(config()), SequencerRules),
    Task(Fetch(1, 2, 2, 2), FetchRules),
    Task(Bursts(4, 6, 4, 1), BurstsRules),
    Task(Reads(4, 1, 6, 4, 8), ReadsRules, cover=40),
    Task(Runs(STORE, 1), RunsRules),
    Task(Tags(STORE, 1), TagsRules),
    Task(Dispatcher(STORE), DispatcherRules),
    *memory.QUICK,
    *board.QUICK,
    *channel.QUICK,
    *noc.QUICK,
    *interface.QUICK,
    *chiplink.QUICK,
    *program.QUICK,
]

TASKS = [
    *QUICK,
    Task(Queue(2, 4), Fifo),
    Task(DeepQueue(2, 4), DeepFifo),
    Task(Loader(config("fp4")), LoaderRules),
    Task(Sequencer(config("fp4")), SequencerRules),
    Task(Loader(config("uni")), LoaderRules),
    Task(Sequencer(config("uni")), SequencerRules),
    Task(Walker(config(cols=2, n_max=4)), WalkerRules),
    Task(Walker(config("fp4", cols=2, n_max=4)), WalkerRules),
    Task(Walker(config("uni", cols=2, n_max=4)), WalkerRules, depth=12, patience=600),
    Task(Parameters(config(), 2), ParametersRules, depth=12),
    Task(Parameters(ONE_LANE, 2), ParametersRules, depth=12),
    Task(Writes(3, 1, 3, 2, 1, 2), WritesRules, cover=30),
    Task(Port(13, 1, 2, 3), PortRules),
    Task(Store(STORE), StoreRules, depth=20),
    Task(Drain(config()), DrainRules, depth=18, cover=14, cut=("lane_*",)),
    Task(Drain(ONE_LANE), DrainRules, depth=18, cover=14, cut=("lane_*",)),
    Task(Engine(TINY), EngineRules, depth=15, patience=100, cover=0, cut=ARITHMETIC),
    Task(Engine(config()), EngineRules, depth=14, patience=60, cover=0, cut=ARITHMETIC, watched=WATCHED),
    Task(Counters((("free", 0, 0), ("commands", 1, 1), ("cow", 3, 0))), CountersFromAnywhere, cover=0),
    *memory.TASKS,
    *channel.TASKS,
    *kvcache.TASKS,
    *queries.TASKS,
    *attention.TASKS,
    *heads.TASKS,
    *noc.TASKS,
    *reduce.TASKS,
    *interface.TASKS,
    *chiplink.TASKS,
    *vector.TASKS,
    *program.TASKS,
    *flow.TASKS,
]
