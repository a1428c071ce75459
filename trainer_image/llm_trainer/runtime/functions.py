"""Functions of the user's, named as module:function: found, called and told apart in one place.

Imports nothing heavy: data preparation checks them before any GPU is taken.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_trainer.protocol import ExitCode
from llm_trainer.runtime.errors import ConfigurationError, classify


def load_function(name: str, field: str) -> Callable[..., Any]:
    """Raises ConfigurationError if the image and its volumes have no such function."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise ConfigurationError(
            f"{field}: {name!r} can't be imported: {error}; build it into the trainer image or correct the name"
        ) from error
    except AttributeError as error:
        if module in sys.modules and not hasattr(sys.modules[module], attribute):
            raise ConfigurationError(f"{field}: module {module} has no {attribute!r}; correct the name") from error
        raise unimportable(name, field, error) from error
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise unimportable(name, field, error) from error
    if not callable(found):
        raise ConfigurationError(f"{field}: {name!r} is a {type(found).__name__} and no function")
    function: Callable[..., Any] = found
    return function


def unimportable(name: str, field: str, error: BaseException) -> ConfigurationError:
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    return ConfigurationError(f"{field}: {name!r} can't be imported: its module raised {said}; mend it")


def check_signature(function: Callable[..., Any], name: str, field: str, written: str, *given: Any, **by: Any) -> None:
    """Raises ConfigurationError for one that can't be called so; `written`: how a user writes one that can."""
    try:
        inspect.signature(function).bind(*given, **by)
    except TypeError as error:
        raise ConfigurationError(
            f"{field}: {name!r} can't be called as it will be: {error}; name a function {written}"
        ) from error
    except ValueError:
        return  # one of C, which tells no signature: the call will tell


def call(function: Callable[..., Any], name: str, field: str, *given: Any, **by: Any) -> Any:
    """What it returns. Raises ConfigurationError for what it raises, but not for memory, storage or a lost process."""
    try:
        return function(*given, **by)
    except Exception as error:
        if classify(error)[0] != ExitCode.INTERNAL:
            raise
        raise ConfigurationError(f"{field}: {name} raised {type(error).__name__}: {error}") from error


def digest_of_function(name: str) -> str | None:
    """Of the files in which a function that was loaded stands: that of its module and that of its own source.

    None where there is no file, as for one of C.
    """
    module = sys.modules[name.partition(":")[0]]
    function = inspect.unwrap(getattr(module, name.partition(":")[2]))
    digest, files = hashlib.sha256(), {getattr(module, "__file__", None), source_of(function)}
    for file in sorted(file for file in files if file):
        try:
            digest.update(Path(file).read_bytes())
        except OSError:  # a module in an archive
            return None
    return f"sha256:{digest.hexdigest()}" if any(files) else None


def source_of(function: Any) -> str | None:
    try:
        return inspect.getsourcefile(function)
    except TypeError:
        return None
