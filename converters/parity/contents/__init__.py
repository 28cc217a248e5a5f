"""What an artefact or a checkpoint holds: proof of its tensors, graph and code."""
