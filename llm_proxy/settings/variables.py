"""Environment variables as settings: which variable is which setting, and what its text means. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from llm_proxy.errors import ConfigError

__all__ = ["PREFIX", "Steps", "kind_of", "settings_in", "tables_of", "variable_of", "variables_of"]

PREFIX = "LLM_PROXY_"
Steps = tuple[str | int, ...]

_NOT_SETTINGS = frozenset({"LLM_PROXY_CONFIG", "LLM_PROXY_URL"})
# What Kubernetes sets in a pod for services whose name begins with llm-proxy.
_INJECTED = re.compile(r"LLM_PROXY_(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP)\w*)?)")
_LIKE_ENOUGH = 0.85  # of difflib: a letter missing, doubled or swapped, not another word


def variable_of(*steps: str) -> str:
    """The variable of a setting, e.g. ``LLM_PROXY_CACHE_STORE`` for ``("cache", "store")``."""
    return PREFIX + re.sub(r"[^A-Za-z0-9]", "_", "_".join(steps)).upper()


def settings_in(
    variables: Mapping[str, str], model: type[BaseModel], below: Mapping[str, Any]
) -> Iterator[tuple[Steps, str, Any]]:
    """The settings that an environment holds.

    Args:
        variables: The environment.
        model: The settings that exist.
        below: Settings that the environment's are laid over: where they name a backend ``my-gpu``, the variable's
            ``MY_GPU`` means that one.

    Yields:
        Steps to a setting, the variable, and its value.

    Raises:
        ConfigError: A variable is not a setting but looks like one, or its text can't be read.
    """
    known = variables_of(model)
    for variable, text in sorted(variables.items()):
        if not variable.startswith(PREFIX) or not text or variable in _NOT_SETTINGS:
            continue
        steps = known.get(variable) or _named(variable, model, below)
        if steps is not None:
            yield steps, variable, _parsed(variable, text, kind_of(model, steps))
        elif not _INJECTED.fullmatch(variable):
            _refuse_misspelt(variable, model)


@cache
def variables_of(model: type[BaseModel]) -> Mapping[str, Steps]:
    """Steps by variable, of all settings but those inside tables whose names the user chooses."""
    found: dict[str, Steps] = {}
    for section, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {variable_of(section, name): (section, name) for name in kind.model_fields}
        else:
            found[variable_of(section)] = (section,)
    return found


def tables_of(model: type[BaseModel]) -> Mapping[str, type[BaseModel]]:
    """What the tables hold whose names the user chooses, by section: ``{"backends": BackendConfig, ...}``."""
    kinds = {section: kind_of(model, (section, "")) for section in model.model_fields if _is_table(model, section)}
    return {section: kind for section, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


def kind_of(model: type[BaseModel], steps: Steps) -> Any:
    """The declared type of a setting; None when there is no such setting."""
    kind: Any = model
    for step in steps:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(step))
            kind = None if field is None else field.annotation
        else:
            kind = get_args(kind)[-1] if get_origin(kind) is Mapping else None
    return kind


def _is_table(model: type[BaseModel], section: str) -> bool:
    return get_origin(model.model_fields[section].annotation) is Mapping


def _named(variable: str, model: type[BaseModel], below: Mapping[str, Any]) -> Steps | None:
    """``LLM_PROXY_BACKENDS_NAME_FIELD`` as steps; NAME is in lower case unless ``below`` spells it otherwise."""
    for section, table in tables_of(model).items():
        rest = variable.removeprefix(variable_of(section) + "_")
        for field in table.model_fields if rest != variable else ():
            name = rest.removesuffix("_" + field.upper())
            if name not in ("", rest):
                there = below.get(section)
                spelt = {variable_of(key): key for key in there} if isinstance(there, Mapping) else {}
                return section, spelt.get(variable_of(name), name.lower()), field
    return None


def _parsed(variable: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if get_origin(kind) is not Mapping:
        return text
    try:
        table = json.loads(text)
    except ValueError:
        table = None
    if not isinstance(table, dict):
        raise ConfigError(f'wrong setting: {variable} must be a JSON object, e.g. {{"name": "value"}}')
    return table


def _refuse_misspelt(variable: str, model: type[BaseModel]) -> None:
    from difflib import get_close_matches

    known = sorted({*variables_of(model), PREFIX + "CONFIG"})
    section = next((name for name in model.model_fields if variable.startswith(variable_of(name) + "_")), "")
    is_like = bool(get_close_matches(variable, known, n=1, cutoff=_LIKE_ENOUGH))
    if not section and not is_like:
        return  # another program's
    table = tables_of(model).get(section)
    if table is not None:
        fields = ", ".join(field.upper() for field in table.model_fields)
        hint = f"; {variable_of(section)}_NAME_... ends with {fields}"
    else:
        near = get_close_matches(variable, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"wrong setting: the environment has {variable}, which is not a setting{hint}")
