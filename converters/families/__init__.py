"""One file per framework: what its checkpoints say beside the tensors."""
