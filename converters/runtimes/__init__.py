"""One file per runtime: load an artefact, run it, name its precision."""
