"""Every message to a deployed client starts a process: what it imports is paid in every round."""

import json
import subprocess
import sys
from pathlib import Path

from server.configuration import load

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, sys
from flwr.app import Context, RecordDict
import clients.app
found = {"app": sorted({name.split(".")[0] for name in sys.modules})}
from flwr.app import Message
from clients.training import train
from fedmeta.wire import ARRAYS, CONFIG, config_record, vector_record
from fedmeta.workload import workload_from_json
from simulations.engine.flower_internals import adopt_identity, give_id
adopt_identity()
text = sys.stdin.read()
workload = workload_from_json(text)
told = config_record({"experiment": text, "round": 1, "update-form": "delta"})
content = RecordDict({ARRAYS: vector_record(workload.initial_vector()), CONFIG: told})
message = Message(content, 2, "train")
give_id(message)
context = Context(1, 2, {"partition-id": 0, "num-partitions": 2}, RecordDict(), {}, 0)
[reply] = train([message], [context])
found["error"] = reply.error.reason if reply.has_error() else None
found["train"] = sorted({name.split(".")[0] for name in sys.modules} | {m for m in sys.modules if m == "torch._dynamo"})
print(json.dumps(found))
"""


def test_a_client_loads_torch_when_it_trains_and_nothing_else_that_is_heavy() -> None:
    experiment = load(
        {
            "data": {"name": "sinusoid"},
            "partition": {"name": "iid", "clients": 1, "test_clients": 1},
            "task": {"ways": 1},
            "model": {"name": "sinusoid"},
            "learner": {"name": "maml", "inner_lr": 0.01},
            "client": {"execution": "loop"},
            "server": {"sampling": {"name": "fixed", "clients": 1}},
        }
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=experiment.to_json(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["error"] is None
    heavy = {"ray", "scipy", "opacus", "matplotlib", "pandas", "sklearn", "jinja2"}
    assert not {"torch", "pydantic", "strategies", "server", *heavy} & set(found["app"])
    assert "torch" in found["train"]
    assert not {"torch._dynamo", "server", *heavy} & set(found["train"])
