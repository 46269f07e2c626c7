"""Models by name: Hugging Face configs shipped as data, or a user's own ``config.json``.

Each file under ``data/models`` is a config plus a ``parlay`` object: aliases, source and date, the published
parameter counts, and a ``count_note`` where the count of the config differs from the published one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from costmodel.catalog.names import canonical, data_files
from costmodel.huggingface import model_from_config
from costmodel.schema.base import Spec
from costmodel.schema.errors import InvalidSpec, UnknownName
from costmodel.schema.model import ModelSpec


class ModelEntry(Spec):
    """What the catalog says about a model beside its config.

    ``published_digits``: significant digits of ``published_params`` as printed; None when the count is exact.
    ``published_includes_mtp``: the published count holds the multi-token-prediction layers.
    ``count_note``: why the config's count differs from the published one beyond its last digit.
    ``count_deviation``: by which fraction it does, (counted - published) / published.
    ``active_note``, ``active_deviation``: the same for the active parameters.
    ``note``: anything else a reader should know about the config.
    """

    aliases: tuple[str, ...] = ()
    source: str
    date: str
    published_params: int | None = None
    published_digits: int | None = None
    published_from: str | None = None
    published_includes_mtp: bool = False
    published_active_params: int | None = None
    published_active_digits: int | None = None
    count_note: str | None = None
    count_deviation: float | None = None
    active_note: str | None = None
    active_deviation: float | None = None
    note: str | None = None


def load_model(name_or_path: str) -> ModelSpec:
    """The model of a catalog name or alias (case and punctuation do not matter), or of a config.json or its folder.

    Raises UnknownName with near matches, InvalidSpec for a config that cannot be read.
    """
    path = Path(name_or_path)
    if path.suffix == ".json" or path.is_dir():
        return _load_file(path / "config.json" if path.is_dir() else path)
    return _shipped(resolve_name(name_or_path))


@cache
def _shipped(name: str) -> ModelSpec:
    config, entry = _read(name)
    model = model_from_config(config, name)
    return model.model_copy(
        update={
            "published_params": entry.published_params,
            "published_active_params": entry.published_active_params,
            "source": f"{entry.source}, {entry.date}",
        }
    )


def model_names() -> list[str]:
    """Every catalog name, sorted; aliases not among them."""
    return sorted(_files())


def model_aliases() -> dict[str, str]:
    """Every alias as written, and the catalog name it stands for."""
    return {alias: name for name in model_names() for alias in load_entry(name).aliases}


def load_entry(name: str) -> ModelEntry:
    """The ``parlay`` object of a catalog model, by its exact catalog name."""
    return _read(name)[1]


def resolve_name(name: str) -> str:
    """The catalog name behind any spelling of a name or alias. Raises UnknownName with near matches."""
    if (found := _choose(_by_letters(), name) or _choose(_aliases_by_letters(), name)) is not None:
        return found
    known = [*_files(), *model_aliases()]
    raise UnknownName("model", name, known, "or give the path of a config.json; 'plan models' lists them all")


def _choose(known: Mapping[str, Mapping[str, str]], name: str) -> str | None:
    """The one model of these letters; where two share them (opt-1.3b, opt-13b), the one with the same points."""
    candidates = known.get(canonical(name), {})
    if len(set(candidates.values())) == 1:
        return next(iter(candidates.values()))
    return candidates.get(_spelled(name))


def _spelled(name: str) -> str:
    """As ``canonical``, with whatever separates two digits kept as a point: ``OPT_1_3B`` -> ``opt1.3b``."""
    return re.sub(r"[^a-z0-9.]", "", re.sub(r"(?<=\d)[^a-z0-9]+(?=\d)", ".", name.lower()))


def _grouped(names: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
    """{letters: {letters and points: catalog name}} of {spelling: catalog name}."""
    groups: dict[str, dict[str, str]] = {}
    for spelling, name in names.items():
        groups.setdefault(canonical(spelling), {})[_spelled(spelling)] = name
    return groups


@cache
def _by_letters() -> Mapping[str, Mapping[str, str]]:
    return _grouped({name: name for name in _files()})


@cache
def _files() -> Mapping[str, Traversable]:
    return data_files("models", ".json")


@cache
def _read(name: str) -> tuple[dict[str, Any], ModelEntry]:
    config = json.loads(_files()[name].read_text(encoding="utf-8"))
    return config, ModelEntry.load(config.pop("parlay"), f"catalog model {name}")


@cache
def _aliases_by_letters() -> Mapping[str, Mapping[str, str]]:
    return _grouped(model_aliases())


def _load_file(path: Path) -> ModelSpec:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        hint = "give a Hugging Face config.json, its folder, or a model name"
        raise InvalidSpec(f"{path}: no such file", hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{path} cannot be read: {error}") from None
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidSpec(f"{path} is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    if not isinstance(config, dict):
        raise InvalidSpec(f"{path} is not a Hugging Face config: it must be a JSON object, not {type(config).__name__}")
    config.pop("parlay", None)
    stated = config.get("_name_or_path")
    name = stated if isinstance(stated, str) and stated else path.parent.name if path.stem == "config" else path.stem
    return model_from_config(config, name or path.stem).model_copy(update={"source": str(path)})
