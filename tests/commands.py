"""Running a command of geomem inside the test process."""

from geomem.cli.main import main


def status(*arguments):
    """Exit status of ``geomem ARGUMENTS``."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def refused(capsys, *arguments):
    """The one line of a command that is refused."""
    capsys.readouterr()
    assert status(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]
