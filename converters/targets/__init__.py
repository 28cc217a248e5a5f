"""One file per framework that a converted folder is written back for."""
