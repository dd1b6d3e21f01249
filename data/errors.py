"""Errors a user can act on. Each carries the exit code the command line ends with.

0 success, 1 fault of ours, 2 wrong input, 3 artefacts that do not fit together, 4 the machine
(disk full, folder in use), 130/143 interrupted.
"""


class AffectLensError(Exception):
    """Base: wrong input; the message says what came in, what is allowed and what to do."""

    exit_code = 2


class ConfigError(AffectLensError):
    """An unknown or invalid configuration key or value."""


class ModelError(AffectLensError):
    """A model cannot be found, fetched, verified or addressed."""


class StimulusError(AffectLensError):
    """A battery file or item breaks the schema; the message names file, line and id."""


class CorpusError(AffectLensError):
    """A corpus is empty, unreadable, or shares text with the battery."""


class ArtifactError(AffectLensError):
    """A file of a run is absent, cut short, of another version, or does not fit the others."""

    exit_code = 3


class HookError(AffectLensError):
    """A hook address is unknown, or a hook that was asked for did not run."""

    exit_code = 3


class MachineError(AffectLensError):
    """The disk is full, a folder is in use, or a limit of the machine was hit."""

    exit_code = 4
