"""Local meta-training of a cohort: from train messages to updates."""
