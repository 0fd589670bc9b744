"""Us and others on the user's own machine, in turn."""
