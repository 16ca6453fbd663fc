"""geomem inside other libraries, each of which is loaded by its own module alone."""
