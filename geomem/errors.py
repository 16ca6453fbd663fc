"""The one exception for what a caller got wrong."""


class InputError(ValueError):
    """Wrong input: the message is one line that names it, says what is wrong with it and what to do.

    The command line prints the message and exits with status 2; a Python caller sees a ``ValueError``.
    """


class LostProcess(RuntimeError):
    """Another process of the group that shares the work has ended."""
