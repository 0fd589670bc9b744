"""Our trainer beside others, on one program: the same weights, batches, optimizer and precision, in turn."""
