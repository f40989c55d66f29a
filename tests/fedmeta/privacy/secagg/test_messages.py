"""Messages survive their bytes, have the specified sizes, and no bytes make anything but a message or a refusal."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedmeta.errors import ConfigurationError
from fedmeta.privacy.secagg import GroupContext, parse
from fedmeta.privacy.secagg.failures import Refused
from fedmeta.privacy.secagg.messages import (
    KeysReply,
    KeysRequest,
    MaskedInput,
    MaskRequest,
    PublicKeys,
    SharesReply,
    SharesRequest,
    UnmaskReply,
    UnmaskRequest,
)

CONTEXT = GroupContext("run 7", 3, 1, (9, 2, 2**64 - 1))
KEYS = PublicKeys(b"m" * 32, b"s" * 32)
MESSAGES = [
    KeysRequest(CONTEXT, 2, 2, 64, 10**7),
    KeysReply(CONTEXT.tag, replace(KEYS, identity=b"id", signature=b"signed")),
    SharesRequest(CONTEXT.tag, {2: KEYS, 9: replace(KEYS, signature=b"x")}),
    SharesReply(CONTEXT.tag, b"c" * 32, (b"a" * 82, b"b" * 82)),
    MaskRequest(CONTEXT.tag, {2: b"a" * 82, 9: b"b" * 82}),
    MaskedInput(CONTEXT.tag, np.arange(5, dtype=np.uint32)),
    MaskedInput(CONTEXT.tag, np.arange(3, dtype=np.uint64) + 2**63),
    UnmaskRequest(CONTEXT.tag, (2, 9), ()),
    UnmaskReply(CONTEXT.tag, (b"1" * 33, b"2" * 33, b"3" * 33)),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_survives_its_bytes_and_no_other_length_of_them(message):
    data = message.to_bytes()
    found = parse(data)
    assert type(found) is type(message)
    for part in fields(message):
        ours, theirs = getattr(message, part.name), getattr(found, part.name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert ours == theirs, part.name
    assert type(message).from_bytes(data).to_bytes() == data
    other = next(kind for kind in map(type, MESSAGES) if kind is not type(message))
    with pytest.raises(Refused, match=f"{type(message).__name__} came where"):
        other.from_bytes(data)
    for cut in range(len(data)):
        with pytest.raises(Refused):
            parse(data[:cut])
    with pytest.raises(Refused, match="1 bytes more"):
        parse(data + b"\0")


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.tuples(st.integers(1, 8), st.binary(max_size=300)).map(lambda p: bytes([p[0]]) + p[1]),
    )
)
@example(b"")
@example(b"\x06" + CONTEXT.tag + b"\x20" + b"\xff" * 8)
@example(b"\x01\x02\x00\xff\xfe" + bytes(12) + b"\xff\xff\xff\xff")
def test_any_bytes_are_a_message_or_refused(data):
    try:
        message = parse(data)
    except Refused:
        return
    assert message.to_bytes() == data


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(MESSAGES), st.data())
def test_a_changed_byte_is_a_message_or_refused(message, data):
    original = bytearray(message.to_bytes())
    at = data.draw(st.integers(0, len(original) - 1))
    original[at] ^= data.draw(st.integers(1, 255))
    try:
        assert parse(bytes(original)).to_bytes() == bytes(original)
    except Refused:
        return


def test_lists_that_name_a_node_twice_or_out_of_order_are_refused():
    for survivors in ((2, 2), (9, 2)):
        with pytest.raises(Refused, match="ascending"):
            parse(UnmaskRequest(CONTEXT.tag, survivors, ()).to_bytes())


def test_fields_that_no_sender_of_ours_writes_are_refused():
    invitation, masked = MESSAGES[0].to_bytes(), MESSAGES[5].to_bytes()
    at = 1 + len(CONTEXT.tag)  # the width of a word
    for data, told in (
        (invitation.replace(b"run 7", b"run \xff"), "no possible group"),
        (b"\x01" + (300).to_bytes(2, "little") + b"x" * 300 + invitation[8:], "no possible group"),
        (masked[:at] + b"\x10" + masked[at + 1 :], "words have 32 or 64"),
        (masked[: at + 1] + b"\xff" * 8 + masked[at + 9 :], "words have 32 or 64"),
    ):
        with pytest.raises(Refused, match=told):
            parse(data)


def test_sizes_are_the_specified_ones():
    """Up 64 + 82 k + 33 (k + 1) + d b / 8 and down 162 k, beside a tag, counts and the members' names."""
    k, length = 10, 1000
    up = [
        KeysReply(CONTEXT.tag, KEYS),
        SharesReply(CONTEXT.tag, b"c" * 32, (b"a" * 82,) * k),
        MaskedInput(CONTEXT.tag, np.zeros(length, dtype=np.uint32)),
        UnmaskReply(CONTEXT.tag, (b"1" * 33,) * (k + 1)),
    ]
    overhead = 4 * 17 + 32 + 4 + 3 * 4 + 5  # kinds and tags, a commitment, two empty texts, counts, the vector's header
    assert sum(len(m.to_bytes()) for m in up) <= 64 + 82 * k + 33 * (k + 1) + 4 * length + overhead
    down = [
        SharesRequest(CONTEXT.tag, dict.fromkeys(range(k), KEYS)),
        MaskRequest(CONTEXT.tag, dict.fromkeys(range(k), b"a" * 82)),
    ]
    assert sum(len(m.to_bytes()) for m in down) == 162 * k + 4 * k + 2 * (17 + 4)


def test_a_context_is_bound_to_each_of_its_parts():
    contexts = [
        CONTEXT,
        replace(CONTEXT, run="run 8"),
        replace(CONTEXT, round=4),
        replace(CONTEXT, group=2),
        replace(CONTEXT, members=(2, 9)),
        GroupContext("run 71", 3, 1, CONTEXT.members),
    ]
    assert len({context.binding for context in contexts}) == len({context.tag for context in contexts}) == 6
    assert replace(CONTEXT, members=(2, 2**64 - 1, 9)).binding == CONTEXT.binding, "the order of members is no part"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"members": (1, 2, 1)}, "node 1 is"),
        ({"members": (-1, 2)}, "2\\^64"),
        ({"round": -1}, "round"),
        ({"run": "x" * 300}, "run"),
    ],
)
def test_contexts_that_cannot_be_are_refused(change, told):
    with pytest.raises(ConfigurationError, match=told):
        replace(CONTEXT, **change)
