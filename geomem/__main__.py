"""Run the command line: ``geomem`` and ``python -m geomem``."""


def main() -> None:
    """``geomem.cli.main.main``; Ctrl-C while it is being loaded is one line too."""
    try:
        from geomem.cli.main import main as run
    except KeyboardInterrupt:
        import sys

        print("geomem: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
