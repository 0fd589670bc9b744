"""A causal network on a CPU at the speed of its memory: C++ that is compiled on the user's machine, once."""
