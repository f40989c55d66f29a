"""The ClientApp that every engine and deployment runs. Handlers import torch when they are first needed."""

from collections.abc import Iterator

from flwr.app import Context, Message

from clients.cohort import CohortApp

app = CohortApp()


@app.query("identity")
def identity(message: Message, context: Context) -> Message:
    """Say who this client is: its stable id, name and role, and which code it runs."""
    from clients.identity import answer

    return answer(message, context)


@app.query("secagg_keys")
def secagg_keys(message: Message, context: Context) -> Message:
    """Join a group of secure aggregation."""
    from clients.secure_aggregation import keys

    return keys(message, context)


@app.query("secagg_shares")
def secagg_shares(message: Message, context: Context) -> Message:
    """Share out this client's secrets among its neighbours."""
    from clients.secure_aggregation import shares

    return shares(message, context)


@app.query("secagg_unmask")
def secagg_unmask(message: Message, context: Context) -> Message:
    """Help to take the masks off the sum of the group."""
    from clients.secure_aggregation import unmask

    return unmask(message, context)


@app.cohort_train()
def train(messages: list[Message], contexts: list[Context]) -> Iterator[Message]:
    """Meta-train a cohort of clients, each on its own tasks."""
    from clients.training import train as run

    return run(messages, contexts)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Judge a model on this client's frozen episodes."""
    from clients.evaluation import evaluate as run

    return run(message, context)
