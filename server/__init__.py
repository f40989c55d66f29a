"""The Flower ServerApp: the round loop, run directories and reports."""
