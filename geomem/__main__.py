"""Run the command line: ``geomem`` and ``python -m geomem``."""

import os


def main() -> None:
    """``geomem.cli.main.main``; Ctrl-C while it is being loaded is one line too."""
    # Read when torch loads. By default a thread that waits for another spins; where another program holds that one's
    # core, a training takes several times as long as on one thread.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from geomem.cli.main import main as run
    except KeyboardInterrupt:
        import sys

        print("geomem: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
