"""Running a ClientApp in this process: whole cohorts where the app takes them, else one message after the other."""

import copy
import importlib
import random
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

import strategies
from clients.cohort import CohortApp, CohortHandler
from clients.failures import CLIENT_APP_RAISED_EXCEPTION, describe
from fedmeta.errors import ConfigurationError, did_you_mean
from simulations.engine.flower_internals import error_reply, is_plain, with_content
from simulations.engine.transport import copied, fresh
from strategies.checking import Outline, outline

LIBRARIES = (
    *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")},
    *strategies.__path__,
    "<frozen ",
    __file__,
)
"""Where code lives that is not the user's."""


@dataclass(frozen=True)
class Turn:
    """One client's turn: what it was sent, who it is, and where its global random generators start.

    Attributes:
        seed: below 2^64, its own for every turn; a turn that runs again elsewhere draws the same.
    """

    message: Message
    context: Context
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of a turn: the reply, the client's state after it, and what the reply holds where that was asked."""

    reply: Message
    state: RecordDict
    outline: Outline | None = None


def load_app(reference: str | ClientApp) -> ClientApp:
    """The app behind `"package.module:attribute"`, or the app itself.

    Raises:
        ConfigurationError: no such module or attribute, or something that is no ClientApp.
    """
    if isinstance(reference, ClientApp):
        return reference
    module_name, colon, attribute = reference.partition(":")
    if not colon:
        raise ConfigurationError(f"app = '{reference}' must be 'package.module:attribute', such as 'clients.app:app'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(f"app = '{reference}': cannot import {module_name}: {error}") from error
    if not hasattr(module, attribute):
        raise ConfigurationError(f"app = '{reference}': no such attribute{did_you_mean(attribute, dir(module))}")
    app = getattr(module, attribute)
    if not isinstance(app, ClientApp):
        raise ConfigurationError(f"app = '{reference}' is a {type(app).__name__}, not a flwr.clientapp.ClientApp")
    return app


def run_turns(app: ClientApp, turns: Sequence[Turn], *, check: bool = False) -> list[Outcome]:
    """Run clients' turns, each to one outcome in the same order; an exception costs the client that raised it.

    A cohort handler gets all turns of its message type at once, and shares what they share: it must not write to what
    it received. Any other app is called once a message through Flower's own path, with content of its own to write to.
    With `check` each reply is looked at where it is made.
    """
    outcomes: dict[int, Outcome] = {}
    by_type: dict[str, list[int]] = {}
    for index, turn in enumerate(turns):
        by_type.setdefault(turn.message.metadata.message_type, []).append(index)
    for message_type, members in by_type.items():
        handler = _cohort_handler(app, message_type)
        chosen = [turns[i] for i in members]
        found = [_alone(app, turn, check) for turn in chosen] if handler is None else _together(handler, chosen, check)
        outcomes.update(zip(members, found, strict=True))
    return [outcomes[index] for index in range(len(turns))]


def _outcome(turn: Turn, reply: Message, state: RecordDict, check: bool) -> Outcome:
    return Outcome(reply, state, outline(turn.message, reply) if check else None)


def _cohort_handler(app: ClientApp, message_type: str) -> CohortHandler | None:
    if not isinstance(app, CohortApp) or not is_plain(app):
        return None
    return app.cohort_handlers.get(message_type)


def _together(handler: CohortHandler, turns: Sequence[Turn], check: bool) -> list[Outcome]:
    from strategies.partial_sums import add_up  # here, since it loads torch, which other apps may not need

    contexts = [_own_context(turn.context) for turn in turns]
    messages = [turn.message for turn in turns]
    try:
        replies = add_up(messages, _as_many(handler(messages, contexts), messages))
    except (Exception, SystemExit) as error:
        if len(turns) == 1:
            return [Outcome(_failed(turns[0].message, error), turns[0].context.state)]
        # One client's fault must not cost the others: each goes alone, from its committed state.
        return [outcome for turn in turns for outcome in _together(handler, [turn], check)]
    made = zip(turns, replies, contexts, strict=True)
    return [_outcome(turn, reply, context.state, check) for turn, reply, context in made]


def _as_many(replies: Iterable[Message], messages: Sequence[Message]) -> Iterator[Message]:
    """The replies as they are made, one each message."""
    given = 0
    for given, reply in enumerate(replies, start=1):
        if given > len(messages):
            raise RuntimeError(f"the cohort handler gave more replies than the {len(messages)} messages that it got")
        yield _checked(reply, messages[given - 1])
    if given < len(messages):
        raise RuntimeError(f"the cohort handler gave {given} replies to {len(messages)} messages")


def _alone(app: ClientApp, turn: Turn, check: bool) -> Outcome:
    message = with_content(turn.message, fresh(turn.message.content))
    context = _own_context(turn.context)
    _seed_generators(turn.seed)
    try:
        reply = _checked(app(message, context), turn.message)
        if reply.has_content():  # an app may fill the same records again for its next client
            reply = with_content(reply, copied(reply.content))
        return _outcome(turn, reply, context.state, check)
    except (Exception, SystemExit) as error:
        return Outcome(_failed(turn.message, error), turn.context.state)


def _own_context(context: Context) -> Context:
    """A context that may be written to: what it holds counts only when the reply does."""
    return Context(
        run_id=context.run_id,
        node_id=context.node_id,
        node_config=dict(context.node_config),
        state=copy.deepcopy(context.state) if len(context.state) else RecordDict(),
        run_config=dict(context.run_config),
    )


def _seed_generators(seed: int) -> None:
    """Start a turn's global generators anew.

    A client that seeds them must not decide what the next one on this worker draws, and clients that do not seed them
    must not all draw the same. torch is left alone where the app has not loaded it.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # half of its bits: an array of both words takes five times as long
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would ask every backend: a millisecond
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Leave the global generators as they were: the server in this process draws from them too."""
    python, numbers = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    tensors = torch.random.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
        if torch is not None and tensors is not None:
            torch.random.set_rng_state(tensors)


def _checked(reply: object, message: Message) -> Message:
    if not isinstance(reply, Message):
        fault = f"TypeError: the handler returned {type(reply).__name__}, not a Message"
    elif reply.metadata.reply_to_message_id != message.metadata.message_id:
        fault = "ValueError: the handler returned a message that is no reply to what it was sent: use reply_to=message"
    else:
        return reply
    return error_reply(message, CLIENT_APP_RAISED_EXCEPTION, fault)


def _failed(message: Message, error: BaseException) -> Message:
    return error_reply(
        message, CLIENT_APP_RAISED_EXCEPTION, describe(error.with_traceback(_to_users_line(error.__traceback__)))
    )


def _to_users_line(trace: TracebackType | None) -> TracebackType | None:
    """Cut a traceback after the user's own last line: where a library raised is no help in finding the cause."""
    users, frame = None, trace
    while frame is not None:
        if not frame.tb_frame.f_code.co_filename.startswith(LIBRARIES):
            users = frame
        frame = frame.tb_next
    if users is None:
        return trace
    return TracebackType(None, users.tb_frame, users.tb_lasti, users.tb_lineno)
