"""Loads settings: command line over environment over TOML file over default.

Invariants: the settings in force depend only on the arguments. Each source is checked as a whole, even where a
stronger one overrides its value. One error reports all faults of all sources, one sentence each, and never contains
the value of a secret.

The environment variable of `section.key` is `RELAY_SECTION_KEY`. An empty variable is an error, not "unset": a
broadcast key that a deployment failed to fill in must not open the relay. Kubernetes sets variables in every pod
beside a Service called `relay`. They are not settings and are ignored.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from relay.settings.settings import Settings
from relay.vocabulary.errors import ConfigurationError

DEFAULT_ORIGIN = "default"
"""The origin of a value that no source sets."""

CONFIG_VARIABLE = "RELAY_CONFIG"
"""The variable that names the configuration file. The command line reads it. It is not a setting."""

_PREFIX = "RELAY_"
_SHOWN_CHARACTERS = 80
_IN_KUBERNETES = "KUBERNETES_SERVICE_HOST"
_SERVICE_LINK = re.compile(
    r"RELAY_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)=.*|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*|PORT=\w+://.*)",
    re.ASCII,
)
"""Kubernetes' variables for a Service called `relay` or `relay-…`: its documentation, "Service", "Discovering"."""

_PROBLEMS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "string_type": "must be text, in quotes",
    "string_unicode": "must be UTF-8 text",
}
"""Descriptions of pydantic's error types whose own text is meant for programmers."""


@dataclass(frozen=True, slots=True)
class Key:
    """One setting.

    Attributes:
        section: The table of the TOML file.
        name: The key in that table.
        field: Its type, default, description and example.
        is_secret: Whether its value must never be shown.
    """

    section: str
    name: str
    field: FieldInfo
    is_secret: bool

    @property
    def dotted(self) -> str:
        """The name in errors and documentation."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return f"{_PREFIX}{self.section}_{self.name}".upper()

    @property
    def option(self) -> str:
        """The name of a command-line option that sets it. Not every key has one."""
        return f"--{self.name.replace('_', '-')}"


def _contains_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(_contains_secret(part) for part in get_args(annotation))


def section_models() -> dict[str, type[BaseModel]]:
    """Return the model of each section by name, in the order of the documentation."""
    return {name: type(field.default) for name, field in Settings.model_fields.items()}


KEYS: Mapping[str, Key] = MappingProxyType(
    {
        f"{section}.{name}": Key(section, name, field, _contains_secret(field.annotation))
        for section, model in section_models().items()
        for name, field in model.model_fields.items()
    }
)
"""Every setting by its dotted name."""

_BY_VARIABLE = {key.variable: key for key in KEYS.values()}


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings in force.

    Attributes:
        settings: The values.
        origins: Where each value came from, by dotted name: "default", the path of the file, the name of the
            environment variable, or the command-line option.
    """

    settings: Settings
    origins: Mapping[str, str]


def load_settings(
    config_path: Path | None, overrides: Mapping[str, object], environ: Mapping[str, str]
) -> LoadedSettings:
    """Return the settings in force, after reading the file, if any.

    Args:
        config_path: The TOML file, or None.
        overrides: Values from the command line by dotted name; None where an option is absent. Messages name the option
            after the last part of the name: `--port` sets `server.port`.
        environ: The environment, for example `os.environ`.

    Raises:
        ConfigurationError: The file cannot be read, or has unusable keys or values; one line for each fault.
    """
    if config_path is None:
        return resolve({}, "", environ, overrides)
    return resolve(_read_toml(config_path), str(config_path), environ, overrides)


def resolve(
    document: Mapping[str, object], file_name: str, environ: Mapping[str, str], overrides: Mapping[str, object]
) -> LoadedSettings:
    """Return the settings in force. This pure function is `load_settings` without reading the file.

    Args:
        document: The parsed TOML file.
        file_name: Its name, for origins and errors.
        environ: See `load_settings`.
        overrides: See `load_settings`.

    Raises:
        ConfigurationError: Some keys or values are unusable; one line for each fault.
    """
    faults: list[str] = []
    layers = (
        _Layer(
            _document_tree(document, file_name, faults),
            lambda _: file_name,
            lambda tree: Settings.model_validate(tree, strict=True),
        ),
        _Layer(_environment_tree(environ, faults), lambda key: key.variable, Settings.model_validate_strings),
        _Layer(_options_tree(overrides), lambda key: key.option, Settings.model_validate),
    )
    values: dict[str, dict[str, object]] = {}
    origins = dict.fromkeys(KEYS, DEFAULT_ORIGIN)
    for layer in layers:
        for key, value in layer.read(faults):
            values.setdefault(key.section, {})[key.name] = value
            origins[key.dotted] = layer.origin(key)
    if faults:
        raise ConfigurationError("\n".join(faults))
    return LoadedSettings(Settings.model_validate(values), MappingProxyType(origins))


@dataclass(frozen=True, slots=True)
class _Layer:
    """One source of settings.

    Attributes:
        tree: Its values by section and name.
        origin: Returns the source's name of a key.
        validate: Reads the tree by the source's own rules: TOML has types, the environment has only text.
    """

    tree: Mapping[str, Mapping[str, object]]
    origin: Callable[[Key], str]
    validate: Callable[[Mapping[str, Mapping[str, object]]], Settings]

    def read(self, faults: list[str]) -> list[tuple[Key, object]]:
        """Return the values that this source sets, and add a sentence to `faults` for each unusable one."""
        try:
            settings = self.validate(self.tree)
        except ValidationError as error:
            faults.extend(self._sentence(details) for details in error.errors())
            return []
        given = [(section, getattr(settings, section)) for section in settings.model_fields_set]
        return [
            (KEYS[f"{section}.{name}"], getattr(model, name))
            for section, model in given
            for name in model.model_fields_set
        ]

    def _sentence(self, details: ErrorDetails) -> str:
        key = KEYS[".".join(str(part) for part in details["loc"][:2])]
        problem = _PROBLEMS.get(details["type"]) or details["msg"].removeprefix("Value error, ")
        problem = problem.replace("Input should", "must").replace("String should", "must")
        problem = problem.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
        shown = "" if key.is_secret else f", not {_shown(details['input'])}"
        return f"{key.dotted} (from {self.origin(key)}) {problem}{shown}."


def _document_tree(document: Mapping[str, object], file_name: str, faults: list[str]) -> dict[str, dict[str, object]]:
    tree: dict[str, dict[str, object]] = {}
    sections = section_models()
    for section, table in document.items():
        if section not in sections:
            faults.append(_unknown(section, f"{file_name}: ", [*sections, *KEYS]))
        elif not isinstance(table, dict):
            faults.append(f"{section} (from {file_name}) must be a table: the line [{section}], with its keys below.")
        else:
            unknown = [name for name in table if f"{section}.{name}" not in KEYS]
            faults.extend(_unknown(f"{section}.{name}", f"{file_name}: ", KEYS) for name in unknown)
            tree[section] = {name: value for name, value in table.items() if name not in unknown}
    return tree


def _environment_tree(environ: Mapping[str, str], faults: list[str]) -> dict[str, dict[str, str]]:
    tree: dict[str, dict[str, str]] = {}
    for name, value in sorted(environ.items()):
        if not name.startswith(_PREFIX) or name == CONFIG_VARIABLE:
            continue
        key = _BY_VARIABLE.get(name)
        if key is None:
            if _IN_KUBERNETES not in environ or _SERVICE_LINK.fullmatch(f"{name}={value}") is None:
                faults.append(_unknown(name, "", [*_BY_VARIABLE, CONFIG_VARIABLE]))
        elif not value:
            faults.append(f"{name} is empty; give it a value, or unset it.")
        else:
            tree.setdefault(key.section, {})[key.name] = value
    return tree


def _options_tree(overrides: Mapping[str, object]) -> dict[str, dict[str, object]]:
    tree: dict[str, dict[str, object]] = {}
    for dotted, value in overrides.items():
        if value is not None:
            key = KEYS[dotted]
            tree.setdefault(key.section, {})[key.name] = value
    return tree


def _unknown(name: str, where: str, known: Iterable[str]) -> str:
    """Return the sentence about an unknown setting, with the nearest known one."""
    candidates = list(known)
    by_last_part = {candidate.rpartition(".")[2]: candidate for candidate in candidates}
    nearest = (
        difflib.get_close_matches(name, candidates, n=1, cutoff=0.8)
        or difflib.get_close_matches(name.rpartition(".")[2], by_last_part, n=1, cutoff=0.6)
        or difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    )
    hint = f"the nearest is {by_last_part.get(nearest[0], nearest[0])}" if nearest else "`relay config` lists all"
    return f"{where}{_printable(name)} is not a setting; {hint}."


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _printable(name: str) -> str:
    return name if name.isprintable() and len(name) <= _SHOWN_CHARACTERS else _shown(name)


def _read_toml(path: Path) -> dict[str, object]:
    try:
        # Some editors begin a file with a byte-order mark.
        return tomllib.loads(path.read_bytes().decode().removeprefix("\ufeff"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{path} is not UTF-8 text, because of the byte at offset {error.start}; save the file as UTF-8."
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}.") from error
    except RecursionError as error:
        raise ConfigurationError(f"{path} is not valid TOML: it is nested too deeply.") from error
