"""Distributed differential privacy: every client adds a share of the noise, and the server sees no sum without it.

Pure mathematics, without any exchange of messages. A protocol of secure aggregation uses it so:

- clients and server build the encoder of a round by `round_encoder.round_encoder`; nothing but the encoded vector is
  summed, no weight and no metric;
- it takes off no masks where fewer than `assumptions.survivors_needed` clients are in a sum: `decode` refuses it, but
  that comes too late for a server that has seen the integers;
- where clipping adapts, `AdaptiveEncoder.split` gives the count, and `adaptive_clip(...).moved` the next clip norm,
  which is public.
"""
