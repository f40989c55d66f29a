"""What an operator does beside Flower's own commands: submit a run and see it through, and look at what runs."""
