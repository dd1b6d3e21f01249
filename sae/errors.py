"""The errors that this room raises; the command line ends with their exit codes."""


class SAEError(ValueError):
    """An SAE cannot be read, is of the wrong form, or does not fit model, store or text."""

    exit_code = 3


class SAERequestError(SAEError):
    """What was asked for does not exist: a file, a release, an id, a place or a device."""

    exit_code = 2
