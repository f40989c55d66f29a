"""Every public call with one degenerate argument in turn: a result without NaN, or an error that names what is wrong.

Public is what the `__all__` of a package names. A name that is added fails here until it stands in the table below.
Every component behind a `make_*` is tried with the parameters that it declares, without a line here.
"""

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.clientapp import ClientApp

from fedmeta import privacy
from fedmeta.parameters import parameters_of
from fedmeta.privacy import secagg
from fedmeta.registry import Registry

PACKAGES = ("fedmeta", "clients", "server", "strategies", "simulations")
NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    1,
    1.5,
    math.nan,
    math.inf,
    -math.inf,
    1e308,
    1e-308,
    10**20,
    10**400,
    True,
    "x",
    None,
    [],
)
TEXTS: tuple[Any, ...] = ("", "nonsense", "é", "x" * 5000, 3, None, [])
MATRICES: tuple[Any, ...] = (
    *(torch.zeros(0, 4), torch.zeros(3, 0), torch.zeros(5), torch.zeros(2, 3, 4), torch.zeros(1, 4), torch.zeros(7, 4)),
    *(torch.full((7, 4), math.nan), torch.full((7, 4), math.inf), torch.full((7, 4), 3e38), torch.eye(7, 4) * 1e-38),
    *(
        torch.ones(7, 4),
        torch.ones(7, 4, dtype=torch.int64),
        np.ones((7, 4), dtype=np.float16),
        [[1.0, 2.0]],
        "x",
        None,
    ),
)
Fault = Callable[..., "str | None"]
PATIENCE = 20
"""Seconds, after which a call hangs."""

MISSING = Path("/proc/nowhere/to/be/found")
"""Where not even root can make a folder."""
PLACES: tuple[Any, ...] = (MISSING, "", "\0", Path("/proc/takes-no-files"), Path("/dev/null"), 3)

RAW: dict[str, Any] = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 3, "validation_clients": 1, "test_clients": 1},
    "task": {"ways": 1, "shots": 3, "queries": 2},
    "model": {"name": "sinusoid"},
    "learner": {"name": "fomaml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop"},
    "server": {"rounds": 1, "sampling": {"name": "fixed", "clients": 2}},
    "evaluation": {"every": 1, "episodes": 1, "validation_episodes": 1, "pooled_episodes": 2},
}


@dataclass(frozen=True)
class Call:
    """A call that works, and what to put in the place of its arguments.

    Attributes:
        target: what is called.
        good: arguments with which it works.
        bad: argument -> values that fit badly; for others these follow from the good value.
        left: arguments that are collaborators (a model, a callback), in whose place nonsense says nothing.
    """

    target: Callable[..., Any]
    good: Mapping[str, Any] = field(default_factory=dict)
    bad: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    left: tuple[str, ...] = ()

    def attempts(self) -> Iterator[tuple[str, Any]]:
        for name, value in self.good.items():
            if name not in self.left:
                for bad in self.bad.get(name, degenerate(value)):
                    yield name, bad


def degenerate(value: Any) -> tuple[Any, ...]:
    """Values that fit badly in the place of a good one."""
    if isinstance(value, str):
        return TEXTS
    if isinstance(value, Path):
        return PLACES
    if isinstance(value, torch.Tensor | np.ndarray):
        return MATRICES
    return NUMBERS


def fault_within(patience: Any, call: Callable[[], Any], name: str, finite: bool) -> str | None:
    """What is wrong with how a call took a degenerate `name`; None for a result or a clear error."""
    try:
        with patience(PATIENCE) as wait:
            found = call()
    except (ValueError, TypeError) as error:
        if isinstance(error, UnicodeError) or not str(error).strip():
            return f"{type(error).__name__} without a clear word: {error}"
        words = str(error).lower()
        return None if any(word in words for word in words_of(name)) else f"{name} is not named: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if wait.over:
        return f"no end after {PATIENCE} s"
    return f"gave NaN: {found}" if finite and has_nan(found) else None


@pytest.fixture(scope="module")
def fault(patience: Any) -> Fault:
    """`fault(call, name, finite)`, see `fault_within`."""
    return partial(fault_within, patience)


def words_of(name: str) -> tuple[str, ...]:
    """How an error may call an argument."""
    spoken = {
        "updates": ("updates", "rows"),
        "benign_updates": ("updates",),
        "source": ("experiment", "grid", "file", "unknown key", "data = 3 must be a table"),
        "resume": ("resume", "run directory"),
        "out": ("out =", "(out)", "--out"),
        "members": ("member", "node"),
        "count": ("count", "a group of"),
        "length": ("length", "words"),
        "data": ("message", "bytes"),
        "vector": ("vector", "coordinate"),
        "name": ("accountant",),
    }
    return (name, name.replace("_", " "), name.replace("_", "-"), *spoken.get(name, ()))


def has_nan(value: Any) -> bool:
    """Whether a NaN is in a result, within dataclasses too."""
    if isinstance(value, torch.Tensor):
        return value.is_floating_point() and bool(value.isnan().any())
    if isinstance(value, float):
        return math.isnan(value)
    if is_dataclass(value) and not isinstance(value, type):
        return any(has_nan(getattr(value, each.name)) for each in fields(value))
    return isinstance(value, list | tuple) and any(map(has_nan, value))


def faults(calls: tuple[Call, ...], fault: Fault, finite: bool = True) -> list[str]:
    found = []
    for call in calls:
        call.target(**call.good)  # it works as it is
        for name, bad in call.attempts():
            what = fault(partial(call.target, **{**call.good, name: bad}), name, finite)
            if what is not None:
                found.append(f"{getattr(call.target, '__qualname__', call.target)}({name}={bad!r:.40}): {what:.200}")
    return found


# --- what is public ---


@cache
def public() -> dict[str, Any]:
    """`package.name` -> object, of every `__all__`."""
    found = {}
    for package in PACKAGES:
        root = importlib.import_module(package)
        inner = (each.name for each in pkgutil.walk_packages(root.__path__, f"{package}.") if each.ispkg)
        for name in (package, *inner):
            module = importlib.import_module(name)
            found |= {f"{name}.{each}": getattr(module, each) for each in getattr(module, "__all__", ())}
    return found


# --- the table ---

GROUP = secagg.GroupContext("run", 1, 0, (1, 2, 3))
COINS = {"noise_multiplier": 1.0, "sampling_rate": 0.1, "steps": 10, "delta": 1e-5, "accountant": "rdp"}
TARGET = {"target_epsilon": 1.0, **{key: value for key, value in COINS.items() if key != "noise_multiplier"}}
EVENT = privacy.Event(privacy.Gaussian(1.0), privacy.Poisson(0.1))


def encoded(vector: Any, bits: int, bound: float, max_count: int) -> Any:
    coder = secagg.FixedPoint(bits, bound, max_count)
    return coder.decode(coder.encode(vector, np.random.default_rng(0)), count=1).tolist()


def server_session(bits: int, length: int) -> Any:
    return secagg.ServerSession(
        GROUP, secagg.Plan(3, 2, 2), bits=bits, length=length, generator=np.random.default_rng(0)
    )


def inline_grid(**given: Any) -> None:
    from simulations import InlineGrid

    with InlineGrid(ClientApp(), **given) as grid:
        list(grid.get_node_ids())


def adversarial_grid(**given: Any) -> None:
    from fedmeta.attacks import make_attack
    from simulations import AdversarialGrid, InlineGrid

    with InlineGrid(ClientApp(), 3) as grid:
        AdversarialGrid(grid, make_attack("ipm"), malicious={0}, **given)


def from_arrays(**given: Any) -> Any:
    from fedmeta.data import from_arrays

    return from_arrays(np.zeros((20, 1, 4, 4), np.float32), np.arange(20) // 2, **given)


def from_rows(**given: Any) -> Any:
    from fedmeta.data import from_rows

    return from_rows([(np.zeros((1, 4, 4)), index // 2) for index in range(20)], **given)


def from_partitions(**given: Any) -> Any:
    from fedmeta.data import from_partitions

    class Halves:
        num_partitions = 2

        def load_partition(self, index: int) -> Any:
            return [(np.zeros((1, 4, 4)), label // 2) for label in range(20)]

    return from_partitions(Halves(), **given)


def from_folder(path: Any) -> Any:
    from fedmeta.data import from_folder

    return from_folder(path)


SHARES = {"test_share": 0.2, "validation_share": 0.1, "seed": 0}
COLUMNS = {"x": (5, "x", None, -9), "label": (5, "x", None, -9)}

CALLS: dict[str, tuple[Call, ...]] = {
    "fedmeta.privacy.epsilon": (Call(privacy.epsilon, COINS),),
    "fedmeta.privacy.noise_multiplier": (Call(privacy.noise_multiplier, TARGET),),
    "fedmeta.privacy.bounds": (
        Call(privacy.bounds, {"events": [EVENT], "delta": 1e-5}, {"events": ([], "x", None, [3], 5)}),
    ),
    "fedmeta.privacy.tightest": (
        Call(
            privacy.tightest,
            {"events": [EVENT], "delta": 1e-5, "name": "rdp"},
            {"events": ([], "x", None, [3], 5)},
        ),
    ),
    "fedmeta.privacy.calibrate": (
        Call(
            privacy.calibrate,
            {
                "plan": lambda z: [privacy.Event(privacy.Gaussian(z), privacy.Poisson(0.1))],
                "target": 1.0,
                "delta": 1e-5,
                "name": "rdp",
            },
            left=("plan",),
        ),
    ),
    "fedmeta.privacy.Event": (
        Call(
            privacy.Event,
            {"mechanism": privacy.Gaussian(1.0), "scheme": privacy.Poisson(0.1), "count": 1},
            {"mechanism": (None, 3, "x"), "scheme": (None, 3, "x")},
        ),
    ),
    "fedmeta.privacy.Gaussian": (Call(privacy.Gaussian, {"noise_multiplier": 1.0}),),
    "fedmeta.privacy.Skellam": (Call(privacy.Skellam, {"noise_multiplier": 1.0, "granularity": 100.0, "size": 10}),),
    "fedmeta.privacy.DiscreteGaussian": (
        Call(privacy.DiscreteGaussian, {"noise_multiplier": 1.0, "granularity": 100.0, "size": 10, "shares": 3}),
    ),
    "fedmeta.privacy.Poisson": (Call(privacy.Poisson, {"rate": 0.1}),),
    "fedmeta.privacy.TruncatedPoisson": (Call(privacy.TruncatedPoisson, {"population": 100, "rate": 0.1, "cap": 20}),),
    "fedmeta.privacy.WithoutReplacement": (Call(privacy.WithoutReplacement, {"population": 100, "drawn": 10}),),
    "fedmeta.privacy.TwoStage": (Call(privacy.TwoStage, {"client_rate": 0.1, "task_rate": 0.5, "steps": 2}),),
    "fedmeta.privacy.secagg.FixedPoint": (
        Call(
            encoded,
            {"vector": np.ones(3), "bits": 32, "bound": 2.0, "max_count": 3},
            {"vector": (np.array([]), np.array([math.nan]), np.array([math.inf]), np.array([1e308]), "x", None)},
        ),
    ),
    "fedmeta.privacy.secagg.Plan": (Call(secagg.Plan, {"count": 5, "degree": 4, "threshold": 3}),),
    "fedmeta.privacy.secagg.choose_plan": (Call(secagg.choose_plan, {"count": 60, "corrupt": 0.1, "dropout": 0.1}),),
    "fedmeta.privacy.secagg.Policy": (Call(secagg.Policy, {"smallest_group": 3, "corrupt": 0.1}),),
    "fedmeta.privacy.secagg.GroupContext": (
        Call(
            secagg.GroupContext,
            {"run": "run", "round": 1, "group": 0, "members": (1, 2, 3)},
            {"members": ((), (1,), (1, 1, 2), (3, 2, 1), (-1, 0, 1), ("a", "b", "c"), None, 3)},
        ),
    ),
    "fedmeta.privacy.secagg.ServerSession": (Call(server_session, {"bits": 32, "length": 10}),),
    "fedmeta.privacy.secagg.parse": (
        Call(
            lambda data: secagg.parse(data) if data != b"good" else None,
            {"data": b"good"},
            {"data": (b"", b"\0", b"x" * 1000, bytes(range(256)), "x", None, 3)},
        ),
    ),
    "fedmeta.data.from_arrays": (Call(from_arrays, SHARES),),
    "fedmeta.data.from_rows": (Call(from_rows, {"x": 0, "label": 1, **SHARES}, COLUMNS),),
    "fedmeta.data.from_partitions": (Call(from_partitions, {"x": 0, "label": 1, **SHARES}, COLUMNS),),
    "simulations.InlineGrid": (Call(inline_grid, {"num_clients": 3, "seed": 0}),),
    "simulations.AdversarialGrid": (
        Call(adversarial_grid, {"knowledge": "omniscient", "start": 1, "stop": 3, "seed": 0}),
    ),
}
"""Calls of plain functions and types."""

ELSEWHERE = {
    **dict.fromkeys(("fedmeta.data.from_folder", "simulations.simulate"), "test_places_and_engines"),
    **dict.fromkeys(("simulations.bench.bench", "simulations.tune.tune"), "test_places_and_engines"),
    "simulations.RayGrid": "test_shares_of_a_pool",
    "fedmeta.data.load_dataset": "test_every_component",
    "fedmeta.deployment.deploy": "test_every_component",
    "fedmeta.deployment.check_deployment": "an experiment that is checked already; test_degenerate_experiments",
    "fedmeta.data.from_torchmeta": "takes collaborators alone; what it reads goes through from_rows",
    "fedmeta.privacy.secagg.ClientSession": "is begun by a message; test_hostile_messages",
    **dict.fromkeys(
        (f"server.report.{name}" for name in ("draw_episode", "headline", "write_report")),
        "takes a run directory that is open; test_degenerate_commands",
    ),
}
"""Public calls that other tests feed, or that take collaborators alone."""

NO_CALLS = {
    *(f"fedmeta.privacy.{name}" for name in ("Adjacency", "Unit", "Bound", "Verdict", "NoAmplification")),
    *(f"fedmeta.privacy.secagg.{name}" for name in ("Aborted", "Encoder", "GroupSum", "Refused")),
    *("server.report.EpisodePicture", "server.report.Row"),
    "strategies.COMPONENTS",
}
"""Enumerations, results, exceptions, protocols: nobody calls them with a value of their own."""


def is_factory(name: str) -> bool:
    return name.rpartition(".")[2].startswith("make_")


def test_every_public_name_is_tried() -> None:
    known = {*CALLS, *ELSEWHERE, *NO_CALLS}
    names = {name for name, found in public().items() if not isinstance(found, Registry) and not is_factory(name)}
    assert names - known == set(), "add the call to the table"
    assert known - names == set(), "no longer public"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_a_result_or_names_what_is_wrong(name: str, fault: Fault) -> None:
    assert faults(CALLS[name], fault) == []


# --- components behind factories ---

REQUIRED: dict[str, Any] = {
    **{"f": 1, "head": ("head.weight", "head.bias"), "clip_norm": 1.0, "std": 1.0, "threshold": 2},
    **{
        "shape": (1, 28, 28),
        "rate": 0.5,
        "cap": 2,
        "clients": 2,
        "name": "x",
        "path": "x",
        "classes": 2,
        "rule": "median",
        "digest": "x",
        "id": 31,
    },
}
"""What a component without a default for it is given."""
REGISTRIES = {name: found for name, found in public().items() if isinstance(found, Registry)}


def settings_of(cls: type) -> dict[str, Any]:
    """Parameters with which a component works."""
    declared = parameters_of(cls)
    found = {name: REQUIRED[name] if each.required else each.default for name, each in declared.items()}
    return {**found, "s": 2} if "s" in found else found  # bucketing wants f or s


def alternatives(value: Any) -> tuple[Any, ...]:
    return (*NUMBERS, *TEXTS, {}, (), [0], ["x"], {"a": 1}) if not isinstance(value, float) else (*NUMBERS, "", {}, [0])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_component_takes_its_parameters_or_names_them(kind: str, fault: Fault) -> None:
    registry, found = REGISTRIES[kind], []
    for name in registry.entries():
        good = settings_of(registry.get(name))
        registry.check(name, good)
        for key, value in good.items():
            for bad in alternatives(value):
                what = fault(partial(registry.check, name, {**good, key: bad}), key, finite=True)
                if what is not None:
                    found.append(f"{name}.{key} = {bad!r:.40}: {what:.200}")
        for nonsense in ("", "nonsense"):
            what = fault(partial(registry.check, name, {**good, nonsense: 1}), nonsense, finite=False)
            if what is not None:
                found.append(f"{name}, {nonsense!r}: {what}")
    assert found == []


@pytest.mark.parametrize("name", [name for name in public() if is_factory(name)])
def test_a_factory_refuses_names_that_there_are_not(name: str) -> None:
    make = public()[name]
    more = (torch.nn.Linear(1, 1),) if name.endswith("make_learner") else ()
    for bad in TEXTS:
        with pytest.raises((ValueError, TypeError), match="unknown"):
            make(bad, *more)


# --- what factories make ---


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["strategies.AGGREGATORS", "strategies.PREAGGREGATORS"])
def test_rules_take_any_matrix_or_name_it(kind: str, fault: Fault) -> None:
    registry, found = REGISTRIES[kind], []
    for name in registry.entries():
        rule = registry.make(name, **settings_of(registry.get(name)))
        for matrix in MATRICES:
            overflow = isinstance(matrix, torch.Tensor) and matrix.numel() > 0 and bool((matrix.abs() > 1e38).any())
            what = fault(partial(rule, matrix), "updates", finite=not overflow)
            if what is not None and " needs " not in what:
                found.append(f"{name}({matrix!r:.60}): {what:.200}")
    assert found == []


@pytest.mark.filterwarnings("ignore")
def test_attacks_on_updates_take_any_matrix_or_name_it(fault: Fault) -> None:
    from fedmeta.attacks import ATTACKS
    from fedmeta.attacks.base import UpdateAttack

    generator, found = torch.Generator().manual_seed(0), []
    for name in ATTACKS.entries():
        cls = ATTACKS.get(name)
        if not issubclass(cls, UpdateAttack):
            continue
        given = settings_of(cls)
        attack = ATTACKS.make(name, **given | ({"knows_rule": False} if "knows_rule" in given else {}))
        for matrix in MATRICES:
            call = partial(attack, matrix, n_malicious=2, generator=generator)
            found.append((name, matrix, fault(call, "benign_updates", finite=False)))
        for count in NUMBERS:
            if isinstance(count, int) and count > 100:
                continue  # so many rows as were asked for, until memory ends
            call = partial(attack, torch.eye(7, 4), n_malicious=count, generator=generator)
            found.append((name, count, fault(call, "n_malicious", finite=True)))
    assert [f"{name}({bad!r:.60}): {what:.200}" for name, bad, what in found if what is not None] == []


@pytest.mark.filterwarnings("ignore")
def test_models_of_a_size_that_there_is_not_are_refused(fault: Fault) -> None:
    from fedmeta.models import MODELS, make_model

    found = []
    for name in MODELS.entries():
        for key, each in parameters_of(MODELS.get(name)).items():
            if isinstance(each.default, int) and not isinstance(each.default, bool):
                for bad in (10**20, 10**12, 10**400):
                    found.append((name, key, fault(partial(make_model, name, **{key: bad}), key, finite=False)))
    assert [f"{name}.{key}: {what:.200}" for name, key, what in found if what is not None] == []


# --- places and engines ---


@pytest.mark.filterwarnings("ignore")
def test_places_and_engines(tmp_path: Path, fault: Fault) -> None:
    from simulations import simulate
    from simulations.bench import bench
    from simulations.tune import tune

    grid = {"name": "g", "base": RAW, "seeds": [0], "attacks": [], "defences": []}
    search = ["learner.inner_lr=log:.01:1"]
    sources = (MISSING, tmp_path, 3, [], {"nonsense": 1}, {"data": 3}, "")
    calls = [
        *(("out", bad, partial(simulate, RAW, engine="inline", out=bad)) for bad in PLACES),
        *(("engine", bad, partial(simulate, RAW, engine=bad, out=tmp_path / "e")) for bad in TEXTS),
        *(("resume", bad, partial(simulate, resume=bad, engine="inline")) for bad in (*PLACES, tmp_path) if bad != 3),
        *(("source", bad, partial(simulate, bad, engine="inline", out=tmp_path / "s")) for bad in (*sources, None)),
        *(("source", bad, partial(bench, bad, tmp_path / "b", engine="inline")) for bad in sources),
        *(("out", bad, partial(bench, grid, bad, engine="inline")) for bad in PLACES),
        *(("engine", bad, partial(bench, grid, tmp_path / "b", engine=bad)) for bad in TEXTS),
        *(
            ("workers", bad, partial(bench, {**grid, "seeds": []}, engine="inline", workers=bad))
            for bad in (0, -1, "x")
        ),
        *(("source", bad, partial(tune, bad, search, 1, tmp_path / "t", engine="inline")) for bad in sources if bad),
        *(
            ("trials", bad, partial(tune, RAW, search, bad, tmp_path / "t", engine="inline"))
            for bad in (0, -1, 1.5, "x")
        ),
        *(("search", bad, partial(tune, RAW, bad, 1, tmp_path / "t", engine="inline")) for bad in ([], ["x"], 3, [""])),
        *(("seed", bad, partial(tune, RAW, search, 1, tmp_path / "t", seed=bad)) for bad in (-1, 1.5, "x")),
        *(("engine", bad, partial(tune, RAW, search, 1, tmp_path / "t", engine=bad)) for bad in TEXTS),
        *(("path", bad, partial(from_folder, bad)) for bad in PLACES),
    ]
    found = [(name, bad, fault(call, name, finite=False)) for name, bad, call in calls]
    assert [f"{name} = {bad!r:.60}: {what:.300}" for name, bad, what in found if what is not None] == []
    assert not any(tmp_path.iterdir()), "what was refused left nothing"


def test_shares_of_a_pool(fault: Fault) -> None:
    """Refused before Ray is started or joined; another test of this process may have started it."""
    import ray

    from simulations import RayGrid

    before = ray.is_initialized()
    bad = {
        "num_clients": (0, -1, 1.5, math.nan, "x", None),
        "cpus_per_client": (0, -1, math.nan, math.inf, "x", None, []),
        "gpus_per_client": (-1, 1.5, math.nan, math.inf, "x", None, []),
        "actors": (0, -1, 1.5, math.nan, "x", []),
        "start_timeout": (0, -1, math.nan, "x", None),
        "client_timeout": (0, -1, math.nan, "x", []),
        "seed": (-1, 1.5, "x", None),
    }
    found = []
    for name, values in bad.items():
        for value in values:
            given = {"num_clients": 3, name: value}
            what = fault(partial(RayGrid, ClientApp(), **given), name, finite=False)
            found.append(f"{name} = {value!r}: {what or 'taken'}" if what is not None else "")
    assert list(filter(None, found)) == [] and ray.is_initialized() == before
