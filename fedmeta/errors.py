"""The one exception that a user is meant to read."""


class FedmetaError(ValueError):
    """Something the user can mend: the message says what was wrong, why it matters and what to do.

    The `fedmeta` command prints the message alone; any other exception is a bug and keeps its traceback.
    """


class ConfigurationError(FedmetaError):
    """An experiment, a parameter or a command line that cannot work."""


class DataError(FedmetaError):
    """A data set that is missing, damaged, or too small for the tasks asked of it."""


class CheckpointError(FedmetaError):
    """A run directory or checkpoint that is missing, damaged, or belongs to another experiment."""


def did_you_mean(name: str, known: list[str] | tuple[str, ...]) -> str:
    """Return `"; did you mean 'x'?"` for the closest known name, else the known names.

    >>> did_you_mean("krumm", ["krum", "mean"])
    "; did you mean 'krum'?"
    >>> did_you_mean("zzz", ["krum", "mean"])
    '; known: krum, mean'
    """
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(sorted(known)) or 'none'}"
