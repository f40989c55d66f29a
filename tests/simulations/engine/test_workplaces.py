"""Grids in processes of their own: foreign folders, declared GPUs, wrong addresses, and what is left at the end."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]

APP = """
    import os, sys, time
    sys.path.insert(0, CHECKOUT)
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.clientapp import ClientApp
    from simulations import RayGrid

    app = ClientApp()

    @app.query()
    def who(message, context):
        import simulations.engine.worker
        me = {"pid": os.getpid(), "engine": simulations.engine.worker.__file__, "torch": "torch" in sys.modules,
              "threads": os.environ["OMP_NUM_THREADS"], "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")}
        return Message(RecordDict({"me": ConfigRecord(me)}), reply_to=message)

    @app.train("slow")
    def slow(message, context):
        time.sleep(0.3)
        return who(message, context)

    @app.query("hangs")
    def hangs(message, context):
        time.sleep(600)

    def ask(grid, kind="query", timeout=None):
        messages = [Message(RecordDict(), node, kind) for node in grid.get_node_ids()]
        return grid.send_and_receive(messages, timeout=timeout)
"""


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run a script that lies elsewhere, in a folder that the checkout is not on the path of."""
    script = folder / "script" / "main.py"
    script.parent.mkdir()
    script.write_text(textwrap.dedent(APP).replace("CHECKOUT", repr(str(CHECKOUT))) + textwrap.dedent(code))
    workplace = folder / "workplace"
    workplace.mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RAY_ADDRESS")}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=workplace,
        env=kept,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_a_folder_with_modules_named_like_ours_and_nothing_left_at_the_end(tmp_path: Path) -> None:
    """Its own `server.py` and `simulations/` lie first on every worker's path; the grid is never closed."""
    (tmp_path / "workplace" / "simulations").mkdir(parents=True)
    (tmp_path / "workplace" / "simulations" / "__init__.py").write_text("raise RuntimeError('the wrong simulations')")
    (tmp_path / "workplace" / "server.py").write_text("raise RuntimeError('the wrong server')")
    done = run(
        tmp_path,
        """
        if __name__ == "__main__":
            with RayGrid(app, 2) as one, RayGrid(app, 2, actors=1, cpus_per_client=0.01) as two:
                one.close()  # the Ray that it started is still in use
                mine = [reply.content["me"] for reply in ask(two)]
                assert {me["engine"] for me in mine} == {CHECKOUT_ENGINE}, mine
                assert not any(me["torch"] for me in mine), "an app without torch loads none"
                assert "torch" not in sys.modules, "nor does the driver"
                assert {me["threads"] for me in mine} == {"1"}
            grid = RayGrid(app, 2, actors=2)
            pids = [reply.content["me"]["pid"] for reply in ask(grid)]
            late = ask(grid, "query.hangs", timeout=1)
            assert all("time limit of 1 s" in reply.error.reason for reply in late)
            print("pids", *pids)
        """.replace("CHECKOUT_ENGINE", repr(str(CHECKOUT / "simulations" / "engine" / "worker.py"))),
    )
    pids = done.stdout.split("pids")[1].split()
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_gpu_share_that_does_not_tile(tmp_path: Path) -> None:
    """F07: two declared GPUs; 0.6 each gives 2 actors, 0.4 gives 4 and not 5, and 10 clients finish."""
    run(
        tmp_path,
        """
        if __name__ == "__main__":
            import ray
            ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)
            for share, actors in ((0.6, 2), (0.4, 4)):
                with RayGrid(app, 10, cpus_per_client=0.5, gpus_per_client=share) as grid:
                    assert grid.plan.actors == actors, grid.plan
                    replies = ask(grid)
                    assert len(replies) == 10 and not any(reply.has_error() for reply in replies)
                    assert {reply.content["me"]["gpus"] for reply in replies} <= {"0", "1"}
                    assert "lies idle" in grid.plan.describe() and "use 0." in grid.plan.describe()
        """,
    )


def test_an_address_where_no_cluster_answers_is_an_error_in_seconds(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        if __name__ == "__main__":
            from fedmeta.errors import ConfigurationError
            started = time.monotonic()
            for address in ("127.0.0.1:1", "nonsense"):
                try:
                    RayGrid(app, 2, ray_address=address)
                except ConfigurationError as error:
                    assert f"engine.ray_address = '{address}'" in str(error) and "ray start --head" in str(error)
                else:
                    raise AssertionError(address)
            assert time.monotonic() - started < 12
        """,
    )


@pytest.mark.slow
def test_a_machine_that_leaves_the_cluster_costs_no_client(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
        if __name__ == "__main__":
            import threading
            from ray.cluster_utils import Cluster

            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
            second = cluster.add_node(num_cpus=1)
            with RayGrid(app, 6, ray_address=cluster.address, start_timeout=15) as grid:
                assert grid.plan.actors == 2
                ask(grid, "train.slow")
                threading.Timer(0.4, lambda: cluster.remove_node(second)).start()
                for _ in range(2):
                    assert not any(reply.has_error() for reply in ask(grid, "train.slow"))
            cluster.shutdown()
        """,
    )


def test_code_and_data_reach_the_machines_of_a_cluster(tmp_path: Path) -> None:
    """Two raylets made by `ray start`: the second runs the driver's code from its own folder, on the driver's data."""
    run(
        tmp_path,
        """
        if __name__ == "__main__":
            import subprocess
            import numpy as np
            from pathlib import Path
            from fedmeta.data.delivered import data_key
            from simulations import simulate

            def start(*words, cache):
                ray = str(Path(sys.executable).parent / "ray")
                environment = {**os.environ, "FEDMETA_CACHE": str(Path.cwd() / cache)}
                words = ["start", *words, "--num-cpus=1", "--disable-usage-stats", "--temp-dir", TEMPORARY]
                subprocess.run([ray, *words], check=True, env=environment, stdout=subprocess.DEVNULL)

            @app.query("place")
            def place(message, context):
                import ray, simulations
                from fedmeta.data.delivered import delivered
                data = delivered("toy", {})
                me = {"code": simulations.__file__, "node": ray.get_runtime_context().get_node_id(),
                      "data": -1.0 if data is None else float(data.sum())}
                return Message(RecordDict({"me": ConfigRecord(me)}), reply_to=message)

            PORT = FREE_PORT
            start("--head", f"--port={PORT}", "--include-dashboard=false", cache="first")
            start(f"--address=127.0.0.1:{PORT}", cache="second")
            try:
                toy = {data_key("toy", {}): np.ones(9)}
                with RayGrid(app, 4, ray_address=f"127.0.0.1:{PORT}", datasets=toy) as grid:
                    assert grid.plan.actors == 2, grid.plan
                    by_node = {}
                    for _ in range(20):
                        for reply in ask(grid, "query.place"):
                            me = reply.content["me"]
                            by_node[me["node"]] = (me["code"], me["data"])
                    assert len(by_node) == 2, by_node
                    (home, none), (away, nine) = sorted(by_node.values(), key=lambda found: found[1])
                    assert home.startswith(CHECKOUT) and none == -1
                    assert away.startswith(str(Path.cwd() / "second" / "code")) and nine == 9
                tiny = {
                    "data": {"name": "sinusoid"}, "model": {"name": "sinusoid"}, "learner": {"name": "maml"},
                    "partition": {"name": "iid", "clients": 3, "test_clients": 1}, "task": {"ways": 1, "shots": 5},
                    "client": {"execution": "loop"},
                    "server": {"rounds": 2, "sampling": {"name": "fixed", "clients": 2}},
                    "evaluation": {"episodes": 2, "pooled_episodes": 2},
                }
                there = simulate(tiny, overrides={"engine.ray_address": f"127.0.0.1:{PORT}"}, out="cluster")
                assert there.model_hash == simulate(tiny, engine="inline", out="inline").model_hash
            finally:
                listed = subprocess.run(["ps", "-wweo", "pid=,args="], capture_output=True, text=True, check=True)
                for line in listed.stdout.splitlines():
                    if TEMPORARY in line and str(os.getpid()) != line.split()[0]:
                        try:
                            os.kill(int(line.split()[0]), 9)
                        except ProcessLookupError:
                            pass
        """.replace("CHECKOUT", repr(str(CHECKOUT)))
        .replace("TEMPORARY", repr(f"/tmp/r{os.getpid()}"))
        .replace("FREE_PORT", str(free_port())),
    )  # Ray's sockets need a short folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
