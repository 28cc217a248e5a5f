"""One file per framework whose real networks a converted folder can be judged against."""
