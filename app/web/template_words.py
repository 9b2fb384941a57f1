"""What pages say of templates and of the work on them."""

from __future__ import annotations

from dataclasses import dataclass

from flask_babel import LazyString

from app.language import lazy_gettext as _l
from app.models import Operation, OperationKind, Template, TemplateKind, TemplateState
from app.services import builds, templates
from app.web.operation_words import Worked

STEPS = {  # of workers.templates, app.services.recipes and the drivers
    "queued": _l("Waiting for the host"),
    "clearing": _l("Clearing up"),
    "preparing": _l("Getting ready"),
    "looking": _l("Looking through the file"),
    "fetching": _l("Fetching what it starts from"),
    "copying": _l("Making a machine to build it in"),
    "network": _l("Waiting for the network"),
    "sources": _l("Reading the lists of packages"),
    "base": _l("Installing the base system"),
    "desktop": _l("Installing the desktop"),
    "packages": _l("Installing the packages you named"),
    "miniconda": _l("Installing Miniconda"),
    "cuda": _l("Installing CUDA"),
    "jupyter": _l("Installing JupyterLab"),
    "seal": _l("Taking out keys, passwords and traces"),
    "publishing": _l("Making the image"),
    "trying": _l("Starting a machine from it, to see that it works"),
    "waiting": _l("Waiting for machines that are being made from it"),
    "deleting": _l("Deleting"),
}
KINDS = {
    TemplateKind.RECIPE: _l("recipe"),
    TemplateKind.IMAGE: _l("image"),
    TemplateKind.FILE: _l("file"),
    TemplateKind.INSTANCE: _l("machine"),
}
TAIL = 25  # lines of the log that are shown while it grows


@dataclass(frozen=True)
class Sight(Worked):
    """One template as its page shows it."""

    template: Template
    operation: Operation | None  # the newest

    @property
    def state(self) -> tuple[str, LazyString]:
        """The code in app.web.states and the word."""
        return state_of(self.template)

    @property
    def step(self) -> str:
        """What the work under way is at."""
        code = self.operation.step if self.operation else ""
        if self.template.retired_at is not None and code == "queued" and templates.wanted(self.template.id):
            code = "waiting"
        return str(STEPS.get(code, code))

    @property
    def log(self) -> str:
        """What was said: all of it once it is over."""
        text = self.operation.log if self.operation else ""
        return "\n".join(text.splitlines()[-TAIL:]) if self.busy else text

    @property
    def canceller(self) -> str:
        """Who has put an end to its build; "": nobody."""
        return str(self.operation.details.get("cancel", "")) if self.operation else ""

    @property
    def cancelled(self) -> bool:
        """Whether that, and nothing else, ended it."""
        return bool(self.operation and self.canceller and self.operation.error == builds.ended_by(self.canceller))

    @property
    def cancellable(self) -> bool:
        """Whether its build can be cancelled, and is not yet."""
        return self.operation is not None and builds.can_be_left(self.operation) and not self.canceller

    @property
    def failure(self) -> str:
        """What did not work."""
        if self.operation is not None and self.operation.kind == OperationKind.DISCARD:
            return str(_l("The image could not be removed."))
        if self.cancelled:
            return str(_l("%(name)s cancelled the build.", name=self.canceller))
        return str(_l("The template could not be built."))


def fits(template: Template) -> bool:
    """Whether there is nothing to say of its NVIDIA libraries."""
    return template.retired_at is not None or templates.fits_driver(template)


def state_of(template: Template) -> tuple[str, LazyString]:
    """The code in app.web.states and the word."""
    if template.retired_at is not None:
        return "ended", _l("Retired")
    return {
        TemplateState.BUILDING: ("creating", _l("Being built")),
        TemplateState.READY: ("free", _l("Ready")),
        TemplateState.FAILED: ("failed", _l("Not built")),
    }[template.state]
