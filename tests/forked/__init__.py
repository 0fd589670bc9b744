"""Processes that start in milliseconds: they are forked from one that has imported torch and used nothing of it."""
