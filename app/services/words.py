"""Phrases that several sentences share: moments, GPUs, people. In the reader's language and zone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from flask_babel import format_datetime
from flask_babel import gettext as _

from app.models import Gpu


def when(moment: datetime) -> str:
    """A moment as short as can be without doubt: `Tue 4 Nov 20:00`."""
    return format_datetime(moment, _("EEE d MMM HH:mm"))


def gpu_label(gpu: Gpu) -> str:
    """A GPU's name on its host: `GPU 2`, the N of /dev/nvidiaN."""
    return _("GPU %(number)s", number=gpu.minor)


def gpu_list(gpus: Iterable[Gpu]) -> str:
    """Several GPUs of one host: `GPU 2, GPU 3`."""
    return _(", ").join(gpu_label(gpu) for gpu in sorted(gpus, key=lambda gpu: gpu.minor))
