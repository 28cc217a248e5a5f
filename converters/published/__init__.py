"""The published checkpoints: which there are, and fetching them."""
