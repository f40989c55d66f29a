"""Foreign client apps, written to a folder that the path knows, so that Ray workers can import them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FOREIGN = '''
"""A client app that has never heard of fedmeta."""
import os, time
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def reply(message, array, **metrics):
    content = RecordDict({
        "arrays": ArrayRecord({"w": Array(array)}),
        "metrics": MetricRecord({"num-examples": 1, **metrics}),
    })
    return Message(content, reply_to=message)


@app.train()
def train(message, context):
    """Double what came in place, and count the turns of this client."""
    array = message.content["arrays"]["w"].numpy()
    seen = float(array[0])
    array *= 2
    record = context.state.get("turns", MetricRecord({"count": 0}))
    turns = record["count"] + 1
    context.state["turns"] = MetricRecord({"count": turns})
    return reply(message, array, seen=seen, turns=turns)


@app.train("raises")
def raises(message, context):
    if context.node_config["partition-id"] == 3 and message.content["config"]["round"] == 2:
        raise ValueError("no column age")
    return train(message, context)


@app.train("all_raise")
def all_raise(message, context):
    raise ValueError("no column age")


@app.train("deadly")
def deadly(message, context):
    """Kill this worker, once where a marker file can still be taken away, always without one."""
    config = message.content["config"]
    if context.node_config["partition-id"] == config["victim"]:
        try:
            os.remove(config["marker"])
        except FileNotFoundError:
            if config["once"]:
                return train(message, context)
        os.kill(os.getpid(), 9)
    return train(message, context)


@app.train("hangs")
def hangs(message, context):
    if context.node_config["partition-id"] == 0:
        time.sleep(600)
    return train(message, context)


warm = []


@app.train("cold")
def cold(message, context):
    """A process's first turn takes long, as loading data does; client 2 hangs where it is told to."""
    if not warm:
        warm.append(time.sleep(1.5))
    if context.node_config["partition-id"] == 2 and message.content["config"]["hang"]:
        time.sleep(600)
    return train(message, context)


@app.train("exits")
def exits(message, context):
    if context.node_config["partition-id"] == 0:
        raise SystemExit(3)
    return train(message, context)


@app.train("large")
def large(message, context):
    """Keep more in the state than fits into a pickle."""
    kept = context.state["large"]["w"].numpy().mean() if "large" in context.state else 0.0
    context.state["large"] = ArrayRecord({"w": Array(np.ones(100_000))})
    return reply(message, np.ones(3), kept=float(kept))


@app.train("poison")
def poison(message, context):
    bad = [np.full(3, np.nan), np.ones(2), np.ones(3)]
    kind = context.node_config["partition-id"] % 4
    if kind == 3:
        return train(message, context)
    return reply(message, bad[kind], **({"other": 1.0} if kind == 2 else {"seen": 1.0, "turns": 1}))


@app.query()
def who(message, context):
    me = {"pid": os.getpid(), "partition": context.node_config["partition-id"]}
    return Message(RecordDict({"me": ConfigRecord(me)}), reply_to=message)


@app.query("global_draw")
def global_draw(message, context):
    """Seeds the global generator, as careless apps do."""
    before = float(np.random.random())
    if message.content["config"]["round"] == 2:
        np.random.seed(0)
    return Message(RecordDict({"me": ConfigRecord({"before": before})}), reply_to=message)
'''

COHORT = """
from flwr.app import Message, MetricRecord, RecordDict
from clients.cohort import CohortApp

app = CohortApp()


@app.cohort_train()
def train(messages, contexts):
    fails = [c.node_config["partition-id"] for c in contexts if c.node_config["partition-id"] == 2]
    if fails and messages[0].content["config"]["fail"]:
        raise RuntimeError("client 2 is unwell")
    return [Message(RecordDict({"m": MetricRecord({"cohort": len(messages)})}), reply_to=m) for m in messages]


modded = CohortApp()


@modded.cohort_train()
def train_modded(messages, contexts):
    return train(messages, contexts)


@modded.lifespan()
def lifespan(context):
    yield
"""


@pytest.fixture(scope="session")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("apps")
    (folder / "foreign_app.py").write_text(FOREIGN)
    (folder / "cohort_app.py").write_text(COHORT)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
