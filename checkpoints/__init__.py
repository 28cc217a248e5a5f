"""The published checkpoints' manifest, and a trained checkpoint to start with."""
