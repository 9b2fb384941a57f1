"""Static files: addressed by their content, so that a browser may keep them for ever."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from flask import Flask, Response, request

A_YEAR = 365 * 24 * 3600


def init_app(app: Flask) -> None:
    """Put `?v=` and the content's hash on every address of a static file, and long caching on those answers."""

    @app.url_defaults
    def add_hash(endpoint: str, values: dict[str, Any]) -> None:
        if endpoint == "static" and "filename" in values and app.static_folder:
            values.setdefault("v", _hash_of(f"{app.static_folder}/{values['filename']}"))

    @app.after_request
    def cache_static(response: Response) -> Response:
        if request.endpoint == "static" and response.status_code in {200, 304}:
            response.cache_control.public = True
            response.cache_control.no_cache = None
            if "v" in request.args:
                response.cache_control.max_age = A_YEAR
                response.cache_control.immutable = True
        return response


def _hash_of(path: str) -> str | None:
    try:
        return _hash(path, os.stat(path).st_mtime_ns)  # noqa: PTH116 - a Path takes four times as long to make
    except OSError:
        return None


@lru_cache(maxsize=64)
def _hash(path: str, _mtime_ns: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
