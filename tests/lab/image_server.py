"""A server of images on this machine, as LXD fetches them (simplestreams over TLS), which can be told to misbehave."""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import json
import ssl
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app import clock

ALIASES = ("good", "broken", "gone", "silent")
STREAM = "streams/v1/images.json"


class ImageServer:
    """One image under four aliases: `good`; `broken`, which ends in the middle until `mended`; `silent`, which says no
    more from the middle on, until the other end is `left`; `gone`, listed only.
    `before`: a moment to take away what is to be fetched from."""

    def __init__(self, folder: Path, tarball: Path) -> None:
        folder.mkdir(parents=True)
        self.certificate = folder / "server.pem"
        _make_certificate(self.certificate)
        self.mended = threading.Event()
        self.asked = threading.Event()  # a file is being fetched
        self.left = threading.Event()  # whoever was kept waiting hung up
        # Each a file of its own, and none is the lab's own image: one more empty piece of gzip tells them apart.
        self.files = {}
        for number, alias in enumerate(ALIASES):
            path = folder / f"{alias}.tar.gz"
            path.write_bytes(tarball.read_bytes() + gzip.compress(b"", mtime=number))
            self.files[alias] = path
        (folder / "gone.tar.gz").rename(folder / "away")
        self.pages = _pages({alias: folder / ("away" if alias == "gone" else f"{alias}.tar.gz") for alias in ALIASES})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        # Hands are shaken in the thread of each connection: one that says nothing would keep all others waiting.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(owner: ImageServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_GET(self) -> None:
            name = self.path.split("?", maxsplit=1)[0].lstrip("/")
            if name in owner.pages:
                self.send(owner.pages[name])
            elif (path := owner.files.get(name.removesuffix(".tar.gz"))) and path.exists():
                whole = path.read_bytes()
                if path.stem.startswith("silent"):
                    _keep_waiting(self, owner, whole)
                    return
                owner.asked.set()
                broken = path.stem.startswith("broken") and not owner.mended.is_set()
                self.send(whole, len(whole) // 2 if broken else len(whole))
            else:
                self.send_error(404)

        def send(self, content: bytes, count: int | None = None) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:count])

        def log_message(self, *_words: object) -> None:
            pass

    return Handler


def _keep_waiting(handler: Any, owner: ImageServer, whole: bytes) -> None:
    try:
        handler.send(whole, len(whole) // 2)
        owner.asked.set()
        while handler.rfile.read(1):
            pass
    except TimeoutError:
        return
    except OSError:  # in the middle of a word
        pass
    owner.left.set()


def _pages(files: dict[str, Path]) -> dict[str, bytes]:
    products: dict[str, Any] = {}
    for alias, path in files.items():
        content = path.read_bytes()
        item = {
            "ftype": "lxd_combined.tar.gz", "path": f"{alias}.tar.gz", "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }  # fmt: skip
        products[f"debian:bookworm:amd64:{alias}"] = {
            "aliases": alias, "arch": "amd64", "os": "Debian", "release": "bookworm", "release_title": "bookworm",
            "versions": {"20260101_0000": {"items": {"lxd_combined.tar.gz": item}}},
        }  # fmt: skip
    stream = {"content_id": "images", "datatype": "image-downloads", "format": "products:1.0", "products": products}
    entry = {"datatype": "image-downloads", "path": STREAM, "format": "products:1.0", "products": list(products)}
    index = {"format": "index:1.0", "index": {"images": entry}}
    return {"streams/v1/index.json": json.dumps(index).encode(), STREAM: json.dumps(stream).encode()}


def _make_certificate(path: Path) -> None:
    """For 127.0.0.1, its own authority, key and all in one file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), clock.now()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "images")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1))
    builder = builder.not_valid_after(now + timedelta(days=2))
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    made = builder.sign(key, hashes.SHA256())
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
