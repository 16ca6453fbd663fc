"""Running a command of geomem inside the test process."""

from geomem.cli.main import main


def status(*arguments):
    """Exit status of ``geomem ARGUMENTS``."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code
    return 0
