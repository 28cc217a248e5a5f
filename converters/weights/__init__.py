"""From a source's tensors to `model.safetensors`."""
