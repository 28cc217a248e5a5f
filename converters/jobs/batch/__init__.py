"""Many checkpoints at once: one job each, on processes of this machine or on a Ray cluster."""
