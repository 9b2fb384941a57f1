"""A host's room in one line, for whoever chooses where a machine is to be."""

from __future__ import annotations

from app.language import gettext as _
from app.language import ngettext
from app.services.placing import GIB, Room


def about(room: Room, gpus: str = "") -> str:
    """`lab01: 2 of 4 GPUs free now (…), 3 machines, 96 GiB of memory and 640 GiB of disk free`; what is not known is
    left out. `gpus`: in place of the plain count."""
    parts = [gpus or _gpus(room)]
    if room.memory_free is not None and room.disk_free is not None:
        parts.append(ngettext("%(num)s machine", "%(num)s machines", room.machines))
        parts.append(
            _(
                "%(memory)s GiB of memory and %(disk)s GiB of disk free",
                memory=room.memory_free // GIB,
                disk=room.disk_free // GIB,
            )
        )
    if not room.answers:
        parts.append(_("does not answer now"))
    return _("%(host)s: %(about)s", host=room.host, about=_(", ").join(parts))


def _gpus(room: Room) -> str:
    if not room.gpus:
        return _("no GPUs")
    return ngettext(
        "%(free)s of %(num)s GPU free now", "%(free)s of %(num)s GPUs free now", room.gpus, free=room.gpus_free
    )
