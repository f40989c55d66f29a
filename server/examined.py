"""Opening a run to examine it: what findings cannot be written down without is missed before they are sought."""

import tempfile
from pathlib import Path

from fedmeta.errors import FedmetaError
from server.configuration import ALL_COMPONENTS
from server.rundir import RunDir


def open_to_examine(directory: str | Path) -> RunDir:
    """The directory of a run, into which findings and a report can be written.

    A report names the run's attack and defence: a plug-in that is not installed here would end it after hours.

    Raises:
        CheckpointError: there is no run, or its configuration is damaged.
        ConfigurationError: a component of the run that is not known here, or cannot be loaded.
        FedmetaError: the directory cannot be written.
    """
    rundir = RunDir.open(directory, exclusive=False)
    for place, registry in ALL_COMPONENTS.items():
        found = rundir.experiment.component(place)
        for component in found if isinstance(found, tuple) else (found,):
            registry.get(component.name)
    try:
        with tempfile.TemporaryFile(dir=rundir.path):
            pass
    except OSError as error:
        raise FedmetaError(
            f"cannot write in '{rundir.path}', where findings and report go: {error.strerror or error}. Copy the run "
            "to where you can write, and examine it there"
        ) from error
    return rundir
