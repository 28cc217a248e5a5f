"""Right artefacts of random networks, none of which may be refused."""
