"""Which unit each learner can offer, where the noise goes, and why the others are refused."""

from typing import Any, Protocol, runtime_checkable

from fedmeta.errors import ConfigurationError
from fedmeta.learners import LEARNERS
from fedmeta.privacy.units import Unit

_SECOND_ORDER = (
    "its meta-gradient goes through the Hessian of the support loss, so that a support example enters beyond any noise "
    "in the inner loop (replacing one moves a row-clipped gradient by 3.2 clip norms). Use fomaml, or the task unit"
)

_PERSONAL = (
    "its personal weights carry all of a client's data from round to round without noise, and into what the client "
    "shares later: only the client as a whole can be hidden. Use the client unit"
)

NO_EXAMPLE_LEVEL = {
    "maml": _SECOND_ORDER,
    "anil": _SECOND_ORDER,
    "metasgd": _SECOND_ORDER,
    "protonet": "a support example moves every query's gradient through its prototype (7.9 clip norms measured, where "
    "clipping rows claims 2), and noised prototypes are not offered. Use the task unit: it clips whole episodes",
    "matchingnet": "a support example is in every query's attention, so that one moves all gradients of its episode. "
    "Use the task unit: it clips whole episodes",
    "boil": _SECOND_ORDER,
    "abml": _SECOND_ORDER,
    "imaml": "its meta-gradient divides by the Hessian of the support loss, so that a support example enters beyond "
    "any noise in the inner loop. Use fomaml, or the task unit",
    "perfedavg": "its meta-gradient holds a product with a Hessian (hf), whose examples no clipping of rows bounds. "
    "Use fomaml, which is much as its first-order form, or the client unit",
    "lstm_meta": "gates learnt from the gradients themselves are no post-processing of noised ones while the learner "
    "has no private form. Use the task unit",
    **dict.fromkeys(("pfedme", "ditto"), _PERSONAL),
}
"""Learners without example-level privacy, and why. Client level is offered by all."""

NO_TASK_LEVEL = dict.fromkeys(("pfedme", "ditto"), _PERSONAL)
"""Learners without task-level privacy, and why."""


@runtime_checkable
class ExampleLevel(Protocol):
    """A learner whose training can be made private for single examples."""

    def private_meta_gradient(self, params: Any, episode: Any, gradient: Any) -> tuple[Any, Any]:
        """As `meta_gradient`, with every look at the data through `gradient`; returns no metrics, which would leak.

        Args:
            params: the meta-parameters.
            episode: one task.
            gradient: an `ExampleGradient`.
        """
        ...

    @property
    def example_releases(self) -> int:
        """In how many noised gradients of one task an example can take part."""
        ...


def check_offer(learner: str, unit: Unit, own_data: bool = False) -> None:
    """Refuse a unit that a learner cannot offer.

    Args:
        learner: a registered name.
        unit: whose privacy is wanted.
        own_data: whether a client's own data are its one task (`task.kind = "own"`).

    Raises:
        ConfigurationError: names the reason and the remedy.
    """
    if unit is Unit.TASK:
        _check_tasks(learner, own_data)
    if unit is not Unit.EXAMPLE:
        return
    cls = LEARNERS.get(learner)
    reason = NO_EXAMPLE_LEVEL.get(learner)
    if reason is None and not _has_own(cls):
        reason = (
            "it has no `private_meta_gradient` beside its `meta_gradient` (fedmeta.privacy.offers.ExampleLevel). "
            "Use the task or client unit"
        )
    if reason is not None:
        raise ConfigurationError(f"privacy.unit = 'example' is not available for learner '{learner}': {reason}")


def _check_tasks(learner: str, own_data: bool) -> None:
    reason = NO_TASK_LEVEL.get(learner)
    if reason is None and learner == "perfedavg" and own_data:
        reason = (
            "with task.kind = 'own' a client's data are one task, drawn anew at every step: hiding one draw would hide "
            "nothing. Use the client unit"
        )
    if reason is not None:
        raise ConfigurationError(f"privacy.unit = 'task' is not available for learner '{learner}': {reason}")


def _has_own(cls: type) -> bool:
    """Whether the private gradient belongs to the gradient: one that is inherited beside a new one would not."""
    gradients = {"meta_gradient", "query_gradient"}  # the first calls the second where there is one
    owner = next((base for base in cls.__mro__ if gradients & vars(base).keys()), object)
    return "private_meta_gradient" in vars(owner)
