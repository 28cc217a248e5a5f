"""One short table of parameter names per framework."""
