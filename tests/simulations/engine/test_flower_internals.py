"""What we take from Flower's internals; a failure here says what a new Flower changed."""

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from clients.cohort import CohortApp
from clients.failures import CLIENT_APP_RAISED_EXCEPTION
from simulations.engine import flower_internals as internals


def test_messages_can_be_made_and_get_ids() -> None:
    internals.adopt_identity()
    message = Message(RecordDict(), 1234, "train")
    assert message.metadata.message_id == ""
    first = internals.give_id(message)
    assert first and internals.give_id(message) == first == message.metadata.message_id
    reply = Message(RecordDict(), reply_to=message)
    assert reply.metadata.reply_to_message_id == first and reply.metadata.src_node_id == 1234


def test_a_message_is_rebuilt_from_its_halves() -> None:
    internals.adopt_identity()
    message = Message(RecordDict(), 5, "query.identity")
    again = internals.message_from(message.metadata, message.content)
    assert again.metadata.message_type == "query.identity" and again.has_content()


def test_a_message_takes_other_content_and_stays_itself() -> None:
    internals.adopt_identity()
    message, other = Message(RecordDict(), 5, "train"), RecordDict({"m": MetricRecord({"n": 1})})
    changed = internals.with_content(message, other)
    assert changed.content is other and changed.metadata == message.metadata and not message.content
    changed.metadata.dst_node_id = 6
    assert message.metadata.dst_node_id == 5


def test_a_view_by_kind_is_flowers() -> None:
    records = RecordDict({"m": MetricRecord({"n": 1}), "c": ConfigRecord({"n": 1})})
    view = internals.view(records, MetricRecord)
    assert type(view) is type(records.metric_records) and view == records.metric_records
    view["more"] = MetricRecord()
    assert "more" in records


def test_error_codes_are_flowers() -> None:
    from flwr.common.constant import ErrorCode

    assert internals.NODE_UNAVAILABLE == ErrorCode.NODE_UNAVAILABLE
    assert internals.CLIENT_APP_CRASHED == ErrorCode.CLIENT_APP_CRASHED
    assert CLIENT_APP_RAISED_EXCEPTION == ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def test_plain_apps_are_told_from_others() -> None:
    assert internals.is_plain(ClientApp()) and internals.is_plain(CohortApp())
    assert not internals.is_plain(ClientApp(mods=[lambda message, context, call: call(message, context)]))
    spanned = ClientApp()

    @spanned.lifespan()
    def lifespan(context):
        yield

    assert not internals.is_plain(spanned)
    assert internals.empty_run().run_id == internals.RUN_ID
