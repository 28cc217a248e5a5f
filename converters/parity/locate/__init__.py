"""Where an artefact goes wrong: every value inside it, module by module."""
