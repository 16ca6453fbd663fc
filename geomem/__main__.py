"""Run the command line: ``geomem`` and ``python -m geomem``."""

import os


def main() -> None:
    """``geomem.cli.main.main``; Ctrl-C while it is being loaded is one line too."""
    # Read when torch loads. By default a thread that waits for another spins for long; where another program holds that
    # one's core, a training takes several times as long as on one thread. GNU's OpenMP is left a few microseconds.
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
    try:
        from geomem.cli.main import main as run
    except KeyboardInterrupt:
        import sys

        print("geomem: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
