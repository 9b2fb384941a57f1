"""What recipes add, from a server on this machine in place of the real ones: taken only when it is what is known.

The scripts run as they are, in a directory that stands for a machine's root; apt is replaced by what it would bring.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.services.recipes import EXTRAS, steps
from tests.require import need

KEY = "3bf863cc.pub"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_words: object) -> None:
        pass


@dataclass
class Machine:
    """A directory as a machine's root, and a mirror."""

    root: Path
    mirror: Path
    url: str

    def run(self, name: str, **known: str) -> subprocess.CompletedProcess[str]:
        (step,) = [one for one in steps("base", {"extras": {name: self.url}}) if one.code == name]
        # Whatever path of the machine's is named, it is below the directory: nothing of this machine is touched.
        script = re.sub(r"(?<![\w$}./])/(opt|etc|usr/share|usr/local)/", rf"{self.root}/\1/", step.script)
        assert not re.search(r"(?<![\w$}.])/(opt|usr|etc|var|root|home|lib)/", script.replace(str(self.root), "ROOT"))
        environment = {
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "ROOT": str(self.root),
            **step.environment,
            **known,
        }
        return subprocess.run(
            ["/bin/sh", "-c", script], env=environment, text=True, capture_output=True, check=False, timeout=60
        )

    def command(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    need("curl", shutil.which("curl") is not None, "no curl")
    root, mirror = tmp_path / "root", tmp_path / "mirror"
    for folder in ("opt", "etc/profile.d", "etc/apt/sources.list.d", "usr/share/keyrings", "usr/share/applications",
                   "usr/local/bin"):  # fmt: skip
        (root / folder).mkdir(parents=True)
    mirror.mkdir()
    (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n')
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=mirror)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = Machine(root, mirror, f"http://127.0.0.1:{server.server_port}")
        found.command("bin/apt-get", 'echo "apt-get $*" >> "$ROOT/asked"')
        yield found
        server.shutdown()


def test_miniconda_is_installed_if_it_is_the_file_that_is_known(machine: Machine) -> None:
    installer = machine.mirror / f"Miniconda3-{EXTRAS['miniconda']['VERSION']}-Linux-{platform.machine()}.sh"
    missing = machine.run("miniconda")
    assert missing.returncode == 1
    assert f"{machine.url} does not give Miniconda3-" in missing.stdout
    assert "BERTH_SOURCES (miniconda=https://…)" in missing.stdout
    conda = 'mkdir -p "$3/bin"; printf "#!/bin/sh\\necho conda 25.1.1\\n" > "$3/bin/conda"; chmod +x "$3/bin/conda"'
    installer.write_text(f'[ "$1 $2" = "-b -p" ] && {conda}\n')
    other = machine.run("miniconda")
    assert other.returncode == 1
    assert "is not the file that Berth knows" in other.stdout
    assert not (machine.root / "opt/miniconda").exists(), "what is not known is not run"
    sums = dict.fromkeys(("SUM_X86_64", "SUM_AARCH64"), hashlib.sha256(installer.read_bytes()).hexdigest())
    done = machine.run("miniconda", **sums)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "conda 25.1.1"), done.stderr
    assert (machine.root / "etc/profile.d/conda.sh").is_symlink()
    assert machine.run("miniconda", **sums).returncode == 0, "done again after a crash"


def test_cuda_comes_only_with_the_key_that_is_known(machine: Machine, tmp_path: Path) -> None:
    need("gpg", shutil.which("gpg") is not None, "no gpg")
    kind = {"x86_64": "x86_64", "aarch64": "sbsa"}[platform.machine()]
    folder = machine.mirror / "debian12" / kind
    folder.mkdir(parents=True)
    assert f"does not give debian12/{kind}/{KEY}" in machine.run("cuda").stdout
    keys = [_key(tmp_path, name) for name in ("nvidia", "somebody")]
    machine.command("usr/local/cuda/bin/nvcc", "echo release 12.8")
    for content in (keys[1][1], keys[0][1] + keys[1][1], b"no key"):
        (folder / KEY).write_bytes(content)
        refused = machine.run("cuda", FINGERPRINT=keys[0][0])
        assert refused.returncode == 1
        assert "is not NVIDIA's: its fingerprint is" in refused.stdout
        assert not list((machine.root / "etc/apt/sources.list.d").iterdir())
    (folder / KEY).write_bytes(keys[0][1])
    done = machine.run("cuda", FINGERPRINT=keys[0][0])
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "release 12.8"), done.stderr
    ring = machine.root / "usr/share/keyrings/nvidia-cuda.asc"
    assert (machine.root / "etc/apt/sources.list.d/nvidia-cuda.list").read_text() == (
        f"deb [signed-by={ring}] {machine.url}/debian12/{kind}/ /\n"
    )
    assert (machine.root / "asked").read_text().splitlines()[-2:] == [
        "apt-get -q update",
        "apt-get -qy install cuda-toolkit-12",
    ]
    (machine.root / "etc/os-release").write_text('ID=alpine\nVERSION_ID=3.20\nPRETTY_NAME="Alpine"\n')
    assert "signs no CUDA for Alpine" in machine.run("cuda").stdout


def test_jupyter_comes_from_the_index_that_was_named(machine: Machine) -> None:
    machine.command("bin/jupyter", "[ -s $ROOT/pip ] && echo 4.4.1")
    pip = 'echo "$*" > "$ROOT/pip"'
    body = f"cat > $3/bin/pip <<'END'\n#!/bin/sh\n{pip}\nEND\nchmod +x $3/bin/pip"
    machine.command("bin/python3", f"mkdir -p $3/bin; {body}")
    done = machine.run("jupyter")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "4.4.1"), done.stderr
    asked = (machine.root / "pip").read_text()
    assert asked.endswith(f"--index-url {machine.url} jupyterlab\n")
    assert "Exec=jupyter-lab" in (machine.root / "usr/share/applications/berth-jupyter.desktop").read_text()
    machine.command("bin/python3", "mkdir -p $3/bin; printf '#!/bin/sh\\nexit 1\\n' > $3/bin/pip; chmod +x $3/bin/pip")
    failed = machine.run("jupyter")
    assert failed.returncode == 1
    assert f"{machine.url} does not give jupyterlab" in failed.stdout


def _key(folder: Path, name: str) -> tuple[str, bytes]:
    """A key's fingerprint, and the key as NVIDIA publishes its."""
    home = folder / name
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    options = ["--passphrase", "", "--quick-generate-key", name, "ed25519", "sign", "never"]
    subprocess.run([*gpg, *options], check=True, capture_output=True, timeout=60)
    listed = subprocess.run([*gpg, "--with-colons", "--list-keys"], check=True, capture_output=True, text=True).stdout
    fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
    key = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True).stdout
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
    return fingerprint, key
