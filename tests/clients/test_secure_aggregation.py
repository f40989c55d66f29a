"""A client under secure aggregation: what it keeps between messages, what it refuses, and how little it loads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from clients.secure_aggregation import unmask
from fedmeta.errors import ConfigurationError
from fedmeta.privacy import secagg_names as names
from fedmeta.privacy.secagg import ClientSession, GroupContext, Plan, ServerSession
from fedmeta.privacy.secagg.messages import Stage
from fedmeta.privacy.secagg_section import DropoutSection, SecaggSection
from fedmeta.wire import ARRAYS, CONFIG, config_record, vector_record
from fedmeta.workload import Workload
from server.configuration import load
from server.secure_aggregation import TRUSTED, secured
from simulations import InlineGrid
from strategies.decorator import GridDecorator
from strategies.secure_aggregation import SecureAggregationGrid

RAW = {
    "data": {"name": "sinusoid"},
    "partition": {"name": "iid", "clients": 5, "validation_clients": 0, "test_clients": 1},
    "task": {"ways": 1, "shots": 5, "queries": 5},
    "model": {"name": "sinusoid"},
    "learner": {"name": "maml", "inner_lr": 0.01},
    "client": {"steps": 1, "tasks_per_step": 1, "execution": "loop", "optimiser": {"name": "sgd", "lr": 0.01}},
}
CLIENTS = 5


@pytest.fixture
def workload() -> Workload:
    return Workload(load(RAW))


@pytest.fixture
def inner() -> InlineGrid:
    return InlineGrid("clients.app:app", CLIENTS + 1)


def messages(workload: Workload, grid) -> list[Message]:
    told = {"experiment": workload.experiment.to_json(), "round": 1, "update-form": "delta"}
    content = RecordDict({ARRAYS: vector_record(workload.initial_vector()), CONFIG: config_record(told)})
    return [Message(content, node, "train") for node in list(grid.get_node_ids())[:CLIENTS]]


def sessions(grid: InlineGrid) -> dict[int, ClientSession]:
    return {
        client: ClientSession.from_bytes(state[names.RECORD]["session"])
        for client, state in grid._states.items()
        if names.RECORD in state
    }


def secrets_of(session: ClientSession) -> list[bytes]:
    return [
        part
        for part in (session.private_keys, session.seed, *session.peer_keys.values(), *session.shares.values())
        if part
    ]


class Watching(GridDecorator):
    """Notes every secret that stands in a client's Context after an exchange."""

    def __init__(self, grid: InlineGrid) -> None:
        super().__init__(grid)
        self.seen: set[bytes] = set()

    def send_and_receive(self, messages, *, timeout=None):
        replies = self._grid.send_and_receive(messages, timeout=timeout)
        for session in sessions(self._grid).values():
            self.seen.update(secrets_of(session))
        return replies


def kept(grid: InlineGrid) -> bytes:
    """All that the Contexts hold, as bytes."""
    return b"|".join(
        bytes(value)
        for state in grid._states.values()
        for record in state.config_records.values()
        for value in record.values()
        if isinstance(value, bytes)
    )


def test_no_secret_is_left_after_a_round(workload: Workload, inner: InlineGrid) -> None:
    watching = Watching(inner)
    replies = SecureAggregationGrid(watching, seed=0).send_and_receive(messages(workload, inner))
    assert not any(reply.has_error() for reply in replies)
    assert len(watching.seen) == 45, "5 pairs of keys, 5 seeds, keys of 10 pairs of clients, 25 shares"
    left = kept(inner)
    assert left and not [secret for secret in watching.seen if secret in left]
    assert all(session.released for session in sessions(inner).values())


def test_what_a_round_that_ended_early_leaves_is_gone_when_the_next_one_starts(
    workload: Workload, inner: InlineGrid
) -> None:
    watching = Watching(inner)
    grid = SecureAggregationGrid(watching, SecaggSection(dropout=DropoutSection(unmask=1.0)), seed=0)
    assert all(reply.has_error() for reply in grid.send_and_receive(messages(workload, inner)))
    old = {secret for session in sessions(inner).values() for secret in secrets_of(session)}
    assert old and all(secret in kept(inner) for secret in old)
    request = messages(workload, inner)
    for message in request:  # an invitation that the client declines is a start, too
        message.metadata.message_type = names.KEYS
        message.content = RecordDict({names.RECORD: ConfigRecord({names.MESSAGE: b"nonsense"})})
    replies = inner.send_and_receive(request)
    assert all("Refused" in reply.content[names.RECORD][names.REFUSED] for reply in replies)
    assert not [secret for secret in old if secret in kept(inner)]


def test_a_client_that_fails_in_training_keeps_no_secret_either(workload: Workload, inner: InlineGrid) -> None:
    class Spoiling(Watching):
        def send_and_receive(self, messages, *, timeout=None):
            sent = list(messages)
            for message in sent:
                if message.metadata.message_type == "train":
                    message.content[CONFIG] = ConfigRecord({"experiment": "{}", "round": 1})
            return super().send_and_receive(sent, timeout=timeout)

    watching = Spoiling(inner)
    replies = SecureAggregationGrid(watching, seed=0).send_and_receive(messages(workload, inner))
    assert all(reply.has_error() for reply in replies)
    assert watching.seen and not [secret for secret in watching.seen if secret in kept(inner)]


def test_a_second_request_to_unmask_is_refused(workload: Workload, inner: InlineGrid) -> None:
    """After the round the server asks once more, and for the mask key of a client whose vector is in the sum."""
    asked: list[Message] = []

    class Keeping(GridDecorator):
        def send_and_receive(self, messages, *, timeout=None):
            sent = list(messages)
            asked.extend(message for message in sent if message.metadata.message_type == names.UNMASK)
            return self._grid.send_and_receive(sent, timeout=timeout)

    SecureAggregationGrid(Keeping(inner), seed=0).send_and_receive(messages(workload, inner))
    again = [Message(message.content, message.metadata.dst_node_id, names.UNMASK) for message in asked]
    replies = inner.send_and_receive(again)
    assert len(replies) == CLIENTS
    assert all("answers once only" in reply.content[names.RECORD][names.REFUSED] for reply in replies)


@pytest.mark.parametrize(("count", "helps"), [(3, False), (4, True), (5, True)])
def test_a_client_helps_towards_a_sum_of_the_fewest_and_of_no_fewer(inner: InlineGrid, count: int, helps: bool) -> None:
    """Of five, four are the fewest that were accounted, and three would do for the threshold."""
    server = ServerSession(
        GroupContext("run", 1, 0, (1, 2, 3, 4, 5)), Plan(5, 4, 3), bits=32, length=4, generator=np.random.default_rng(0)
    )
    own: dict[int, ClientSession] = {}
    for stage in (Stage.KEYS, Stage.SHARES, Stage.MASK):
        for node, request in server.requests().items():
            if stage is Stage.KEYS:
                own[node], reply = ClientSession.begin(node, request)
            elif stage is Stage.SHARES:
                reply = own[node].share(request)
            elif node <= count:
                reply = own[node].mask(request, np.zeros(4, np.uint32))
            else:
                continue
            server.receive(node, reply)
        server.advance()
    kept = ConfigRecord({"session": own[1].to_bytes(), "least": 4})
    context = Context(1, 1, {}, RecordDict({names.RECORD: kept}), {})
    asked = ConfigRecord({names.MESSAGE: server.requests()[1].to_bytes()})
    answer = unmask(Message(RecordDict({names.RECORD: asked}), 1, names.UNMASK), context)
    assert (names.MESSAGE if helps else names.REFUSED) in answer.content[names.RECORD]
    assert not secrets_of(ClientSession.from_bytes(context.state[names.RECORD]["session"]))


def test_an_update_that_is_to_be_masked_never_leaves_in_the_clear(inner: InlineGrid) -> None:
    workload = Workload(load({**RAW, "secagg": {"enabled": True}, "server": {"sampling": {"clients": 5}}}))
    for reply in inner.send_and_receive(messages(workload, inner)):
        assert "under the masks of secure aggregation only" in reply.error.reason


def test_a_node_may_demand_masks_and_larger_groups(
    workload: Workload, inner: InlineGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = inner._turn

    def demanding(**config):
        def with_config(message: Message):
            made = turn(message)
            made.context.node_config.update(config)
            return made

        monkeypatch.setattr(inner, "_turn", with_config)

    demanding(secagg="required")
    assert all("masks" in reply.error.reason for reply in inner.send_and_receive(messages(workload, inner)))
    assert not any(r.has_error() for r in SecureAggregationGrid(inner).send_and_receive(messages(workload, inner)))
    demanding(**{"secagg-smallest-group": 6})
    replies = SecureAggregationGrid(inner).send_and_receive(messages(workload, inner))
    assert len(replies) == 5 and all("at least 6 members" in reply.error.reason for reply in replies)


def test_keys_are_signed_and_strangers_are_refused(
    workload: Workload, inner: InlineGrid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nodes with SuperNode keys (P-384, OpenSSH); node 2's is not on the others' list."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    identities = [generate_private_key(SECP384R1()) for _ in range(CLIENTS + 1)]
    for index, key in enumerate(identities):
        data = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        (tmp_path / f"{index}.key").write_bytes(data)
    turn = inner._turn

    def trust(known: list[int]) -> None:
        lines = [identities[i].public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) for i in known]
        (tmp_path / "nodes.pub").write_bytes(b"# the nodes\n" + b"\n".join(lines) + b"\n")

    def with_keys(message: Message):
        made = turn(message)
        place = tmp_path / f"{made.context.node_config['partition-id']}.key"
        made.context.node_config.update(
            {
                "secagg-identity": str(place),
                "secagg-trusted": str(tmp_path / "nodes.pub"),
                "partition-id": made.context.node_config["partition-id"],
            }
        )
        return made

    monkeypatch.setattr(inner, "_turn", with_keys)
    trust([0, 1, 2, 3, 4])
    settings = SecaggSection(corrupt=0.0)
    assert not any(
        r.has_error() for r in SecureAggregationGrid(inner, settings).send_and_receive(messages(workload, inner))
    )
    trust([0, 1, 3, 4])
    replies = SecureAggregationGrid(inner, settings).send_and_receive(messages(workload, inner))
    assert replies and all(reply.has_error() for reply in replies)
    assert any("identity is not in the trust list" in reply.error.reason for reply in replies)
    # With the same list the server turns one away whom the others would refuse and end for.
    monkeypatch.setenv(TRUSTED, str(tmp_path / "nodes.pub"))
    experiment = load({**RAW, "secagg": {"enabled": True, "corrupt": 0.0}})
    replies = list(secured(inner, experiment, simulated=False).send_and_receive(messages(workload, inner)))
    [refused] = [reply for reply in replies if reply.has_error()]
    assert len(replies) == 2, "the sum of the other four, and one who is in none"
    assert "node 1002's identity is not in the trust list" in refused.error.reason
    (tmp_path / "nodes.pub").write_text("north\n")
    with pytest.raises(
        ConfigurationError, match=r"FEDMETA_SECAGG_TRUSTED in the SuperLink's .* no list of public keys"
    ):
        secured(inner, experiment, simulated=False)


def test_the_exchanges_around_training_load_no_torch() -> None:
    code = (
        "import sys, clients.app, clients.secure_aggregation as s, clients.secagg_policy; "
        "from fedmeta.privacy.secagg import ClientSession, FixedPoint, parse; "
        "print({'torch', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()", done.stdout
