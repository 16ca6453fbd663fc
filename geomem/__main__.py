"""Run the command line as ``python -m geomem``."""

from geomem.cli.main import main

main()
