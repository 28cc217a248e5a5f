"""Fetching published checkpoints by their names."""
