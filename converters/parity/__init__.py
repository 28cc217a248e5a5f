"""Inputs, metrics, verdicts, golden vectors: the proof that nothing changed."""
