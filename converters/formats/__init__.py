"""One file per artefact, each written from a converted folder."""
