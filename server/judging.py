"""The end of a run: models judged on clients that never trained, and an attack's success measured there."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from fedmeta.attacks.threat import describe_attack, success_steps
from fedmeta.component import Component
from fedmeta.errors import CheckpointError
from fedmeta.wire import vector_record
from server.rundir import RunDir
from strategies.judging import Judging
from strategies.meta import MetaStrategy, vector_hash
from strategies.reasons import group_reasons

log = logging.getLogger("fedmeta.server")


@dataclass(frozen=True)
class FinalJudge:
    """Judges models of one run.

    Attributes:
        grid: that carries the messages.
        strategy: of the run.
        clean: `[D]`, the model of a run without attack, for the lift of an attack's success; None for none.
    """

    grid: Grid
    strategy: MetaStrategy
    clean: Tensor | None = None

    def results(self, round: int, vector: Tensor, best: dict[str, Any] | None, rundir: RunDir) -> dict[str, Any]:
        """Judge the last model `[D]`, also under every defence at deployment, and the best where it is another.

        Raises:
            CheckpointError: the best checkpoint is damaged or of another round.
        """
        names = {str(member.client): member.name for member in self.strategy.directory.role("test", "pooled")}
        last = {"round": round, "names": names, **self._judge(round, vector)}
        deployed = [
            {**component.model_dump(mode="json"), **self._judge(round, vector, component)}
            for component in self.strategy.experiment.evaluation.deployment
        ]
        if deployed:
            last["deployed"] = deployed
        if best is not None:
            same = {key: value for key, value in last.items() if key not in ("round", "names", "deployed")}
            best = {**best, **(same if best["round"] == round else self._judge_best(best["round"], rundir))}
        return {"rounds": round, "model_hash": vector_hash(vector), "last": last, "best": best}

    def _judge_best(self, round: int, rundir: RunDir) -> dict[str, Any]:
        checkpoint = rundir.load("best")
        checkpoint.check(self.strategy.experiment.hash, self.strategy.spec.hash)
        if checkpoint.round != round:
            raise CheckpointError(
                f"the best checkpoint in '{rundir.path}' is of round {checkpoint.round}, and the best round is "
                f"{round}: resume the run from its start in another folder"
            )
        settled = self.strategy.configurations.settled_in(checkpoint.optimiser)
        return self._judge(round, self.strategy.spec.flatten(checkpoint.params), settled=settled)

    def _judge(
        self,
        round: int,
        vector: Tensor,
        deployment: Component | None = None,
        settled: Mapping[str, Any] = MappingProxyType({}),
    ) -> dict[str, Any]:
        experiment, directory = self.strategy.experiment, self.strategy.directory
        settings, success = experiment.evaluation, success_steps(experiment)
        plain = deployment is None  # raw pixels are the same whatever the defence
        judgings = [
            # Across all clients first: it is the longest message, and an engine serves them in this order.
            Judging("pooled", settings.pooled_episodes, settings.steps, plain, success, deployment),
            Judging("test", settings.episodes, settings.steps, plain, success, deployment),
        ]
        arrays, base = vector_record(vector), {**self.strategy.base_config(round), **settled}
        beside = vector_record(self.clean) if self.clean is not None and success else None
        messages = [message for judging in judgings for message in judging.messages(directory, arrays, base, beside)]
        replies = list(self.grid.send_and_receive(messages, timeout=experiment.server.timeout))
        found: dict[str, Any] = {"failed": {}, **({"attack": {}} if success else {})}
        for judging in judgings:
            evaluation, failed = judging.summarise(directory, messages, replies)
            if success:
                found["attack"][judging.split], silent = self._success(judging, messages, replies)
                failed = {**silent, **failed}
            for line in group_reasons(failed):
                under = "" if deployment is None else f" under {deployment.name}"
                log.warning("evaluation on %s clients%s, failed: %s", judging.split, under, line)
            found[judging.split] = evaluation.to_json() if evaluation else None
            found["failed"] |= {str(client): reason for client, reason in failed.items()}
        return found

    def _success(
        self, judging: Judging, messages: Sequence[Message], replies: Sequence[Message]
    ) -> tuple[dict[str, Any] | None, dict[int, str]]:
        protocol, directory = describe_attack(self.strategy.experiment), self.strategy.directory
        success, failed = judging.success(directory, messages, replies, protocol)
        if success is not None:
            return success.to_json(), failed
        if len(failed) < len(judging.members(directory)):
            log.warning(
                "attack success on %s clients: no episode fits attack.target = '%s' with method.target = %s",
                judging.split,
                protocol["target"],
                protocol["parameters"].get("target"),
            )
        return None, failed


class Unjudged:
    """The end of a run whose models are not to be judged on test clients: one of many that validation chooses among."""

    def results(self, round: int, vector: Tensor, best: dict[str, Any] | None, rundir: RunDir) -> dict[str, Any]:
        """What `FinalJudge.results` says, without any evaluation."""
        return {
            "rounds": round,
            "model_hash": vector_hash(vector),
            "last": {"round": round, "names": {}},
            "best": best,
        }
