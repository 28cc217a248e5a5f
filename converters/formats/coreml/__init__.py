"""Core ML: the network as an ML program, in a package that Xcode and Core ML's runtime open."""
