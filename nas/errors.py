"""What can go wrong in `nas`, by who has to act.

    NasError                  exit code
    ├── ConfigError           2   the call or the configuration: fix the option that the message names
    ├── DataError             2   a data set: fix the file or folder that the message names
    ├── TableError            2   a look-up table: rebuild or correct the file that the message names
    ├── CheckpointError       2   a checkpoint: start afresh or point at the right file
    ├── EngineError           2   the machines that tasks run on: see what ended their workers
    └── QuantizationError     4   the model: it cannot be quantized as it stands

Every message is one line: what is wrong, where, and what to do.
"""


class NasError(Exception):
    """Root of the tree; `exit_code` is what the command line returns for it."""

    exit_code: int = 2


class ConfigError(NasError):
    """An option has a value that cannot be used."""


class DataError(NasError):
    """A data set on disk does not follow its layout."""


class TableError(NasError):
    """A look-up table is missing, incomplete or damaged."""


class CheckpointError(NasError):
    """A checkpoint is missing, damaged or of another run."""


class EngineError(NasError):
    """Workers were lost, or there is no cluster at the given address."""


class QuantizationError(NasError):
    """The model cannot be quantized as it stands."""

    exit_code = 4
