"""CohortApp: a ClientApp whose train handler takes a whole cohort of clients at once.

Under Flower's own runtime it behaves as any ClientApp: one message, a cohort of one. An engine of ours that finds a
cohort handler hands it all the messages that wait for its clients, so that they are trained as one batch.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

CohortHandler: TypeAlias = Callable[[list[Message], list[Context]], Iterable[Message]]
"""Messages and contexts of as many clients, to one reply each, in the same order; best made as they are asked for."""


class CohortApp(ClientApp):
    """A ClientApp with handlers for whole cohorts, by action: `app.cohort_handlers["train"]`."""

    def __init__(self) -> None:
        super().__init__()
        self.cohort_handlers: dict[str, CohortHandler] = {}

    def cohort_train(self, action: str = "default") -> Callable[[CohortHandler], CohortHandler]:
        """Register a handler of train messages for a whole cohort, and for single messages as a cohort of one."""

        def register(handler: CohortHandler) -> CohortHandler:
            def alone(message: Message, context: Context) -> Message:
                [reply] = handler([message], [context])
                return reply

            self.train(action)(alone)
            self.cohort_handlers["train" if action == "default" else f"train.{action}"] = handler
            return handler

        return register
