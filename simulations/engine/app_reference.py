"""Whether the module of a client app is there, before actors are started that would look for it in vain."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec

from fedmeta.errors import ConfigurationError


def check_reference(app: str) -> None:
    """Refuse an app whose module is nowhere on the path; its attribute is looked up by the actors that import it.

    The module is found without importing it, nor the packages above it, unless that would be refused: an app may load
    for seconds, and need not be in the driver at all.

    Args:
        app: `"package.module:attribute"`.

    Raises:
        ConfigurationError: no such form, or no such module.
    """
    module, colon, attribute = app.partition(":")
    if not (module and colon and attribute):
        raise ConfigurationError(f"app = '{app}' must be 'package.module:attribute', such as 'clients.app:app'")
    missing = _missing(module)
    if missing and not _may_be_found_by_import(module):
        raise ConfigurationError(
            f"app = '{app}': there is no module '{missing}' where this process looks for modules. Start in the folder "
            "that holds it, put that into PYTHONPATH, or mend the name"
        )


def _missing(module: str) -> str:
    """The first part of a dotted name that no finder knows; empty where all are known."""
    path: Sequence[str] | None = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        if name in sys.modules:
            path = getattr(sys.modules[name], "__path__", [])
            continue
        spec = _spec(name, path)
        if spec is None:
            return name
        path = list(spec.submodule_search_locations or [])
    return ""


def _spec(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    return next((spec for find in finders if find is not None and (spec := find(name, path)) is not None), None)


def _may_be_found_by_import(module: str) -> bool:
    """Whether it is there once the packages above it are imported, which may put their modules anywhere.

    Where these cannot be imported, the actors say why.
    """
    if "." not in module:
        return False
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError as error:
        return error.name is None or not module.startswith(error.name)
    except Exception:
        return True
