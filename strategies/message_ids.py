"""Ids of messages that no grid has sent yet: a grid that answers them itself needs some to answer to."""

import os

from flwr.app import Message


def give_id(message: Message) -> str:
    """Give a message an id, as pushing it to a SuperLink does; one that it has stays."""
    if not message.metadata.message_id:
        message.metadata.__dict__["_message_id"] = os.urandom(16).hex()
    return message.metadata.message_id
