"""What a machine can be made from, as its form shows it: cards of templates for each host, and images below."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.language import gettext as _
from app.models import Host, Template
from app.services import pictures, templates

TEMPLATE = "template:"  # no host's name holds a colon
ANYWHERE = "anywhere:"  # and a template's name


@dataclass(frozen=True)
class Card:
    """One template to choose; `anywhere`: or one of its name on another host."""

    template: Template
    pictured: bool
    anywhere: bool = False

    @property
    def value(self) -> str:
        """What the form sends."""
        return f"{ANYWHERE}{self.template.name}" if self.anywhere else f"{TEMPLATE}{self.template.id}"

    @property
    def text(self) -> str:
        """Its name and where it is."""
        if self.anywhere:
            return self.template.name
        return _("%(image)s on %(host)s", image=self.template.name, host=self.template.host.name)

    @property
    def fits(self) -> bool:
        """Whether GPUs can be used with the libraries in it."""
        return templates.fits_driver(self.template)


@dataclass(frozen=True)
class Group:
    """What one host has. `about`: its GPUs in words; `images`: values and texts."""

    host: str
    about: str
    cards: list[Card]
    images: list[tuple[str, str]] = field(default_factory=list)

    @property
    def values(self) -> list[str]:
        """Everything that can be chosen."""
        return [card.value for card in self.cards] + [value for value, _text in self.images]


def groups(
    hosts: list[Host],
    about: dict[str, str],
    images: dict[str, list[tuple[str, str]]],
    offered: list[Template],
    *,
    anywhere: bool,
) -> list[Group]:
    """For each host that has anything. `anywhere`: before them, each name once, where several hosts have templates."""
    pictured = pictures.having() if offered else set()
    found = [
        Group(
            host.name,
            about[host.name],
            [Card(one, one.id in pictured) for one in offered if one.host_id == host.id],
            images[host.name],
        )
        for host in hosts
    ]
    if anywhere and len({one.host_id for one in offered}) > 1:
        names = {one.name: one for one in offered}
        cards = [Card(one, one.id in pictured, anywhere=True) for _name, one in sorted(names.items())]
        found.insert(0, Group("", _("Wherever there is room"), cards))
    return [group for group in found if group.values]
