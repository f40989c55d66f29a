"""Flower's SecAgg+ on one vector: its own client mod, message by message, and its workflow's server arithmetic."""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    get_parameters_shape,
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat
from flwr.compat.common import recorddict_compat as compat
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)

from fedmeta.privacy.secagg import Plan
from simulations import InlineGrid

MODULUS = 2**32
NODE = 1


@dataclass
class FlowerClient:
    """One node under `secaggplus_mod`; its neighbours exist as far as it can see them: keys, and shares for it."""

    plan: Plan
    vector: Any

    def __post_init__(self) -> None:
        InlineGrid("clients.app:app", 1)  # sets what Flower's messages need in this process
        self.context = Context(1, NODE, {}, RecordDict(), {})
        self.seconds, self.up, self.down = 0.0, 0, 0
        pairs = {NODE + 1 + i: (generate_key_pairs(), generate_key_pairs()) for i in range(self.plan.degree)}
        self.peers = {node: (mask[1], seal) for node, (mask, seal) in pairs.items()}
        self.own: tuple[bytes, bytes] = (b"", b"")
        self.masked: list[bytes] = []

    def run(self) -> "FlowerClient":
        """The four stages."""
        self._setup()
        ciphertexts = self._share()
        masked = self._send(
            {
                Key.STAGE: Stage.COLLECT_MASKED_VECTORS,
                Key.CIPHERTEXT_LIST: ciphertexts,
                Key.SOURCE_LIST: list(self.peers),
            }
        )
        self.masked = masked[Key.MASKED_PARAMETERS]
        lost = list(self.peers)[: self.plan.degree // 10]
        self._send(
            {
                Key.STAGE: Stage.UNMASK,
                Key.ACTIVE_NODE_ID_LIST: [node for node in (NODE, *self.peers) if node not in lost],
                Key.DEAD_NODE_ID_LIST: lost,
            }
        )
        return self

    def _setup(self) -> None:
        reply = self._send(
            {
                Key.STAGE: Stage.SETUP,
                Key.SAMPLE_NUMBER: self.plan.count,
                Key.SHARE_NUMBER: self.plan.degree + 1,
                Key.THRESHOLD: self.plan.threshold,
                Key.CLIPPING_RANGE: 1.0,
                Key.TARGET_RANGE: 2**22,
                Key.MOD_RANGE: MODULUS,
                Key.MAX_WEIGHT: 1000.0,
            }
        )
        self.own = reply[Key.PUBLIC_KEY_1], reply[Key.PUBLIC_KEY_2]

    def _share(self) -> list[bytes]:
        """Shares out; returns the neighbours' for this node, as long as real ones and sealed for it."""
        keys = {
            str(node): [public_key_to_bytes(mask), public_key_to_bytes(seal[1])]
            for node, (mask, seal) in self.peers.items()
        }
        self._send({Key.STAGE: Stage.SHARE_KEYS, str(NODE): list(self.own), **keys})
        state = self.context.state.config_records["secaggplus_state"]
        lengths = [len(state[f"{name}:V"][0]) for name in ("rd_seed_share_dict", "sk1_share_dict")]  # type: ignore
        found = []
        for node, (_, seal) in self.peers.items():
            text = share_keys_plaintext_concat(node, NODE, *(os.urandom(length) for length in lengths))
            found.append(encrypt(generate_shared_key(seal[0], bytes_to_public_key(self.own[1])), text))
        return found

    def _send(self, configs: dict[str, Any]) -> Any:
        content = RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(configs)})
        message = Message(content, dst_node_id=NODE, message_type="train")
        self.down += _size(configs)
        started = time.process_time()
        reply = secaggplus_mod(message, self.context, self._train)
        self.seconds += time.process_time() - started
        found = reply.content.config_records[RECORD_KEY_CONFIGS]
        self.up += _size(found)
        return found

    def _train(self, message: Message, context: Context) -> Message:
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.vector]), 100, {})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)


def flower_server_seconds(plan: Plan, client: FlowerClient, loss: float) -> float:
    """Processor seconds of the workflow's last two stages for a group: sum, rebuild, unmask.

    One client's masked vector and one secret's shares stand for everybody's: what they hold does not change the work.
    """
    lost = round(loss * plan.count)
    survivors = plan.count - lost
    neighbours = round(plan.degree * (1 - loss))
    private, public = generate_key_pairs()
    seeds = create_shares(os.urandom(32), plan.threshold, plan.degree + 1)
    keys = create_shares(private_key_to_bytes(private), plan.threshold, plan.degree + 1)
    pem = public_key_to_bytes(public)
    started = time.process_time()
    total = [bytes_to_ndarray(data) for data in client.masked]
    for _ in range(survivors - 1):
        total = parameters_addition(total, [bytes_to_ndarray(data) for data in client.masked])
    total = parameters_mod(total, MODULUS)
    for _ in range(survivors):
        seed = combine_shares(seeds[: neighbours + 1])
        total = parameters_subtraction(total, pseudo_rand_gen(seed, MODULUS, get_parameters_shape(total)))
    for _ in range(lost):
        secret = combine_shares(keys[:neighbours])
        for i in range(neighbours):
            shared = generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(pem))
            mask = pseudo_rand_gen(shared, MODULUS, get_parameters_shape(total))
            total = (parameters_addition if i % 2 else parameters_subtraction)(total, mask)
    parameters_mod(total, MODULUS)
    return time.process_time() - started


def _size(values: Any) -> int:
    """Bytes of a record's values and names: 8 for a number; what the wire adds around them is not counted."""
    if isinstance(values, (bytes, str)):
        return len(values)
    if isinstance(values, (list, tuple)):
        return sum(_size(value) for value in values)
    if isinstance(values, (dict, ConfigRecord)):
        return sum(len(key) + _size(value) for key, value in values.items())
    return 8 if np.isscalar(values) else 0
