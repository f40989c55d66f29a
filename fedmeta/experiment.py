"""The experiment schema: one TOML file, validated once, the same for every engine and deployment.

Importing this module loads no torch; validating the components' parameters loads the modules that declare them.
"""

import hashlib
import json
from typing import Any

from pydantic import Field

from fedmeta.adversarial import OBJECTIVES
from fedmeta.attacks import ATTACKS
from fedmeta.component import Component, default_component
from fedmeta.data import DATASETS, PARTITIONS
from fedmeta.deployment import DEPLOYMENTS
from fedmeta.experiment_sections import (
    AttackSection,
    ClientSection,
    DeploymentSection,
    EngineSection,
    EvaluationSection,
    PrivacySection,
    ServerSection,
    SharingSection,
    TaskSection,
    TrackingSection,
)
from fedmeta.fedex_section import FedexSection
from fedmeta.learners import LEARNERS
from fedmeta.models import MODELS
from fedmeta.optimisers import OPTIMISERS
from fedmeta.privacy.secagg_section import SecaggSection
from fedmeta.registry import Registry
from fedmeta.section import Section

LIBRARY_COMPONENTS: dict[str, Registry] = {
    "data": DATASETS,
    "partition": PARTITIONS,
    "model": MODELS,
    "learner": LEARNERS,
    "client.optimiser": OPTIMISERS,
    "client.adversarial": OBJECTIVES,
    "server.optimiser": OPTIMISERS,
    "attack.method": ATTACKS,
    "evaluation.deployment": DEPLOYMENTS,
}
"""Places in an experiment that name a component of the library, and the registry that knows its parameters."""

DERIVED = {"model": ("input_shape", "ways", "codes")}
"""Component parameters that follow from the data and the learner; an experiment does not set them."""

PLAIN_STYLES = ("ink", "binary")
"""Values of `data.style` that leave pictures as they were before there was a choice."""


class Experiment(Section):
    """A whole experiment. Every key has a bound and, in brackets, a unit."""

    name: str = Field(
        "experiment",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="of the run directory: letters, digits, . _ -",
    )
    seed: int = Field(0, ge=0, description="of every reproducible draw; 0 is a seed like any other")
    data: Component = default_component("hershey", "the data set")
    partition: Component = default_component("alphabet", "how it is divided among clients")
    task: TaskSection = Field(TaskSection(), description=TaskSection.__doc__)
    model: Component = default_component("conv4", "the network")
    learner: Component = default_component("protonet", "the meta-learner")
    sharing: SharingSection = Field(SharingSection(), description=SharingSection.__doc__)
    client: ClientSection = Field(ClientSection(), description=ClientSection.__doc__)
    server: ServerSection = Field(ServerSection(), description=ServerSection.__doc__)
    evaluation: EvaluationSection = Field(EvaluationSection(), description=EvaluationSection.__doc__)
    privacy: PrivacySection = Field(PrivacySection(), description=PrivacySection.__doc__)
    secagg: SecaggSection = Field(SecaggSection(), description=SecaggSection.__doc__)
    attack: AttackSection = Field(AttackSection(), description=AttackSection.__doc__)
    fedex: FedexSection = Field(FedexSection(), description=FedexSection.__doc__)
    engine: EngineSection = Field(EngineSection(), description=EngineSection.__doc__)
    deployment: DeploymentSection = Field(DeploymentSection(), description=DeploymentSection.__doc__)
    tracking: TrackingSection = Field(TrackingSection(), description=TrackingSection.__doc__)

    def component(self, place: str) -> Component | tuple[Component, ...]:
        """The component, or the list of them, at a dotted place, such as `client.optimiser`."""
        found: Any = self
        for key in place.split("."):
            found = getattr(found, key)
        return found

    def to_json(self) -> str:
        """The resolved experiment as canonical JSON: what a run directory keeps, and what our engines tell clients."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def without_places(self) -> "Experiment":
        """The experiment without where data and the clean model lie, which is no business of a deployed node's."""
        told = self.model_dump(mode="json")
        told["data"].pop("path", None)
        told["attack"]["clean"] = None
        return type(self).model_validate(told)

    @property
    def hash(self) -> str:
        """SHA-256 of everything that results depend on.

        That is all but name, tracking, `deployment`, where data and clean model lie, defences at deployment, which
        judge a model once more, and of the engine all but device, threads and reduce.
        """
        relevant = self.model_dump(mode="json", exclude={"tracking", "name", "deployment"})
        engine = relevant.pop("engine")
        relevant["engine"] = {key: engine[key] for key in ("device", "threads")}
        if engine["reduce"] != "off":  # runs from before there was any keep their hash
            relevant["engine"]["reduce"] = engine["reduce"]
        relevant["data"].pop("path", None)
        if relevant["data"].get("style") in PLAIN_STYLES:  # runs from before there was paper keep their hash
            del relevant["data"]["style"]
        if relevant["partition"].get("seed") is None:  # likewise runs from before divisions had a seed of their own
            relevant["partition"].pop("seed", None)
        del relevant["evaluation"]["deployment"]
        if self.evaluation.patience is None:
            del relevant["evaluation"]["patience"], relevant["evaluation"]["min_improvement"]
        if self.privacy.unit == "none":
            del relevant["privacy"]  # runs from before there was any keep their hash
        elif self.privacy.placement != "distributed":
            for key in ("mechanism", "min_survivors", "colluders"):
                del relevant["privacy"][key]
        if not self.fedex.configurations:
            del relevant["fedex"]
        if not self.secagg.enabled:
            del relevant["secagg"]
        if self.client.precision == "float32":
            del relevant["client"]["precision"]
        if self.client.adversarial.name == "none":
            del relevant["client"]["adversarial"]
        if self.attack.method.name == "none":
            del relevant["attack"]
        else:
            relevant["attack"].pop("clean")
        if not relevant["server"]["preaggregators"]:  # unknown to checkpoints of early versions
            del relevant["server"]["preaggregators"]
        if relevant["server"]["root"] == "none":
            del relevant["server"]["root"]
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()
