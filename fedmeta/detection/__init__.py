"""Detection: of malicious clients round by round, and of a backdoored model after training."""
