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
_WEIGHTS = {"network": 2, "sources": 4, "base": 20, "desktop": 60, "packages": 8, "seal": 2}
_LIMITS = {"network": 120.0, "sources": 300.0, "seal": 120.0}
_LONG = 3600.0  # a slow mirror


def steps(recipe: str, options: dict[str, Any]) -> list[Step]:
    """What to run for a recipe ("": none, only the last step), with what the admin set."""
    environment = {
        "MIRROR": str(options.get("mirror", "")).rstrip("/"),
        "PACKAGES": " ".join(options.get("packages", [])),
    }
    codes = [*(RECIPES[recipe].steps if recipe else ()), "seal"]
    return [
        Step(code, _HEAD + _text(code), _WEIGHTS[code], _LIMITS.get(code, _LONG), environment)
        for code in codes
        if code != "packages" or options.get("packages")
    ]


def _text(name: str) -> str:
    return (_FOLDER / f"{name}.sh").read_text()
