"""Deployment on real machines: certificates and keys, exported data, and a check of a client's machine."""
