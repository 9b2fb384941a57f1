"""Gzip for pages and assets, where the browser takes it and it is worth it."""

from __future__ import annotations

import gzip
from functools import lru_cache

from flask import Flask, Response, request

SMALLEST = 600
TEXT = ("text/", "application/json", "application/problem+json", "application/javascript", "image/svg+xml")


def init_app(app: Flask) -> None:
    """Compress every answer that is text, known as a whole and not small."""

    @app.after_request
    def compress(response: Response) -> Response:
        if not (response.mimetype or "").startswith(TEXT):
            return response
        response.vary.add("Accept-Encoding")
        if request.accept_encodings["gzip"] <= 0 or response.status_code in {204, 206, 304}:
            return response
        asset = request.endpoint == "static"
        if response.headers.get("Content-Encoding") or (response.is_streamed and not asset):
            return response
        response.direct_passthrough = False
        body = response.get_data()
        if len(body) < SMALLEST:
            return response
        response.set_data(_asset(body) if asset else gzip.compress(body, 6, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
        if (etag := response.get_etag()[0]) is not None:
            response.set_etag(f"{etag}-gzip", weak=True)
        return response


@lru_cache(maxsize=32)
def _asset(body: bytes) -> bytes:
    return gzip.compress(body, 9, mtime=0)
