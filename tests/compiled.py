"""What is compiled for each new application, and is the same in all of them, is compiled once for all tests.

Almost every test makes an application of its own; without this three quarters of the quick suite's time is Werkzeug
compiling the same few hundred rules, and Jinja the same templates.
"""

from __future__ import annotations

from types import CodeType
from typing import Any

import pytest
from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from werkzeug.routing import Rule


class Templates(BytecodeCache):
    """Compiled templates by name and by what is in the file."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], CodeType | None] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._found.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._found[bucket.key, bucket.checksum] = bucket.code


def once(patch: pytest.MonkeyPatch) -> None:
    """Have it compiled once until the patch is undone."""
    compiled: dict[tuple[Any, ...], Any] = {}
    real = Rule._compile_builder

    def builder(rule: Rule, append_unknown: bool = True) -> Any:
        key = (rule.rule, rule.subdomain, rule.host, repr(rule.defaults), append_unknown)
        if key not in compiled:
            compiled[key] = real(rule, append_unknown)
        return compiled[key]

    patch.setattr(Rule, "_compile_builder", builder)
    patch.setattr(Flask, "jinja_options", {**Flask.jinja_options, "bytecode_cache": Templates()})
