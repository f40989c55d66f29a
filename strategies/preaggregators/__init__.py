"""Pre-aggregation rules, one file each."""
