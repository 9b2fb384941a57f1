"""What is run inside a builder to make a template of it: constant scripts for Debian and Ubuntu, one for each step.

All that varies comes by the environment. The last step of every template takes out what machines must not share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
_HEAD = "set -eu\nexport DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1\ncd /\n"


@dataclass(frozen=True)
class Recipe:
    """A machine that Berth knows how to make."""

    name: str
    steps: tuple[str, ...]
    desktop: bool = False


@dataclass(frozen=True)
class Step:
    """One script. `weight`: how long it takes beside the others; `limit`: seconds after which it is given up."""

    code: str
    script: str
    weight: int
    limit: float
    environment: dict[str, str] = field(default_factory=dict)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("base", ("network", "sources", "base", "packages")),
        Recipe("desktop", ("network", "sources", "base", "desktop", "packages"), desktop=True),
    )
}
# What a recipe can add, each from a source of its own (see app.config.SOURCES), and what is known of the files there.
MINICONDA = {
    "VERSION": "py312_25.1.1-2",
    "SUM_X86_64": "4766d85b5f7d235ce250e998ebb5a8a8210cbd4f2b0fea4d2177b3ed9ea87884",
    "SUM_AARCH64": "6d05b9f9b7f327b90797a4cf56d68c81578bab2f63257a3e7a8b72cb0f0e4b5d",
}
CUDA = {"KEY": "3bf863cc.pub", "FINGERPRINT": "EB693B3035CD5710E231E123A4B469963BF863CC"}
EXTRAS: dict[str, dict[str, str]] = {"miniconda": MINICONDA, "cuda": CUDA, "jupyter": {}}
_WEIGHTS = {"network": 2, "sources": 4, "base": 20, "desktop": 60, "packages": 8, "seal": 2}
_WEIGHTS |= {"miniconda": 10, "cuda": 60, "jupyter": 15}
_LIMITS = {"network": 120.0, "sources": 300.0, "seal": 120.0}
_LONG = 3600.0  # a slow mirror


def steps(recipe: str, options: dict[str, Any]) -> list[Step]:
    """What to run for a recipe ("": none, only the last step), with what the admin set."""
    environment = {
        "MIRROR": str(options.get("mirror", "")).rstrip("/"),
        "PACKAGES": " ".join(options.get("packages", [])),
    }
    extras = options.get("extras", {}) if recipe else {}
    known = {code: EXTRAS[code] | {"SOURCE": str(extras[code])} for code in EXTRAS if code in extras}
    codes = [*(RECIPES[recipe].steps if recipe else ()), *known, "seal"]
    return [
        Step(code, _HEAD + _text(code), _WEIGHTS[code], _LIMITS.get(code, _LONG), environment | known.get(code, {}))
        for code in codes
        if code != "packages" or options.get("packages")
    ]


def _text(name: str) -> str:
    return (_FOLDER / f"{name}.sh").read_text()
