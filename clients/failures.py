"""A failure of one client as a reply, so that it costs one client and not the cohort."""

from flwr.app import Error, Message

CLIENT_APP_RAISED_EXCEPTION = 2
"""Flower's error code for an exception in a ClientApp."""


def error_reply(message: Message, error: BaseException) -> Message:
    """Reply to a message with the exception's type, text and the line that raised it."""
    return Message(Error(CLIENT_APP_RAISED_EXCEPTION, describe(error)), reply_to=message)


def describe(error: BaseException) -> str:
    """`ValueError: no column age (loader.py:12 in read)`: one line for logs and metrics.

    >>> describe(ValueError("no column age"))
    'ValueError: no column age'
    """
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    text = f"{type(error).__name__}: {error}".replace("\n", " ")
    if frame is None:
        return text
    code = frame.tb_frame.f_code
    return f"{text} ({code.co_filename.rsplit('/', 1)[-1]}:{frame.tb_lineno} in {code.co_name})"
