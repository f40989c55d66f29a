"""How the messages of secure aggregation are called: both sides, and no torch, which a key exchange does without."""

KEYS, SHARES, UNMASK = "query.secagg_keys", "query.secagg_shares", "query.secagg_unmask"
"""Message types of the exchanges around a round's train messages."""

RECORD = "secagg"
"""The ConfigRecord that the protocol adds to a message; in a client's Context, the one that holds its session."""

MESSAGE = "message"
"""In it, the bytes of a `fedmeta.privacy.secagg` message."""

REFUSED = "refused"
"""In it, why there is none. A refusal is content, since a client's Context is kept with content only: the session has
ended, and that must be written down."""

MASKED, BYTES = "masked", "bytes"
"""The ArrayRecord of a reply to a train message, and its only array, uint8: the bytes of a `MaskedInput`."""

WEIGHTED, BOUND, COUNT = "weighted", "bound", "max-count"
METRIC_BOUND, WEIGHT_BOUND, CLIP_NORM = "metric-bound", "weight-bound", "clip-norm"
"""In the record of a train message: how to lay out and to encode what is masked."""

METRIC_NAMES = "metric-names"
"""In the record of its reply: what the metrics are called, in order. Beside it, the weight bound that was used."""
