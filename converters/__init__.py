"""Converting RegNet checkpoints: read, recognise, plan, stream, export, verify, publish."""
