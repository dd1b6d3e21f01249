"""The error that this room raises; the command line ends with its exit code."""


class SAEError(ValueError):
    """An SAE cannot be read, is of the wrong form, or does not fit model, store or text."""

    exit_code = 3
