"""Distributed differential privacy: every client adds a share of the noise, and the server sees no sum without it.

Pure mathematics, without any exchange of messages: encoders for secure aggregation, and what they cost.
"""
