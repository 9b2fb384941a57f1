"""For admins: what machines are made from, how it is built, who may use it."""

from __future__ import annotations

from flask import Blueprint, Response, flash, request, url_for

from app import queue
from app.errors import DomainError, InvalidInput
from app.extensions import settings, transaction
from app.language import gettext as _
from app.models import Template, TemplateState
from app.services import builds, operations, pictures, templates
from app.web import template_form, template_words
from app.web.render import go, is_fragment, render
from app.web.security import admin_required
from app.web.sessions import me
from app.web.template_form import NewForm, UseForm

bp = Blueprint("templates", __name__, url_prefix="/templates")


@bp.get("")
@admin_required
def index() -> Response:
    """All templates, those in use first."""
    return render(
        "templates/index.html",
        found=templates.every(),
        retired=templates.every(retired=True),
        words=template_words,
    )


@bp.get("/new/<any(recipe, image, file, machine):way>")
@admin_required
def new(way: str) -> Response:
    """The form for a template, made this way; `?host=` chooses one."""
    form = template_form.WAYS[way](formdata=None)
    form.choose()
    if form.host is not None and request.args.get("host"):
        form.host.data = request.args["host"]
    return _form_page(way, form)


@bp.post("/new/<any(recipe, image, file, machine):way>")
@admin_required
def create(way: str) -> Response:
    """Ask for it; its host builds it."""
    form = template_form.WAYS[way]()
    form.choose()
    if form.validate():
        try:
            with transaction():
                host = form.where()
                operation = templates.request_build(me(), host, form.wish())
        except InvalidInput as error:
            form.refuse(error)
        else:
            queue.wake(host.name)
            return go(url_for("templates.show", template_id=operation.template_id))
    return _form_page(way, form, 422)


@bp.get("/<int:template_id>")
@admin_required
def show(template_id: int) -> Response:
    """One template; asks for itself again every second while work on it is under way."""
    return _page(templates.get(template_id))


@bp.post("/<int:template_id>")
@admin_required
def change(template_id: int) -> Response:
    """Describe it anew, and say who may use it."""
    template, form = templates.get(template_id), template_form.ChangeForm()
    if form.validate():
        try:
            with transaction():
                templates.change(me(), template, **form.use())
        except InvalidInput as error:
            form.refuse(error)
        else:
            flash(_("Saved. Machines that were made from it stay as they are."))
            return go(url_for("templates.show", template_id=template_id))
    return _page(templates.get(template_id), form, 422)


@bp.post("/<int:template_id>/retry")
@admin_required
def retry(template_id: int) -> Response:
    """Build once more what failed, or remove the image of a retired one once more."""
    template = templates.get(template_id)
    try:
        with transaction():
            templates.retry(me(), template)
    except DomainError as error:
        flash(str(error), "error")
        return _page(templates.get(template_id), status=409)
    queue.wake(template.host.name)
    return go(url_for("templates.show", template_id=template_id))


@bp.post("/<int:template_id>/cancel")
@admin_required
def cancel(template_id: int) -> Response:
    """Put an end to its build. It can be built again, as it was asked for or from other settings."""
    template = templates.get(template_id)
    try:
        with transaction():
            builds.cancel(me(), template)
    except DomainError as error:
        flash(str(error), "error")
        return _page(templates.get(template_id), status=409)
    return go(url_for("templates.show", template_id=template_id))


@bp.get("/<int:template_id>/amend")
@admin_required
def ask_amend(template_id: int) -> Response:
    """The form that asked for it, filled in as it was, to mend what made it fail."""
    template = templates.get(template_id)
    if template.state != TemplateState.FAILED or template.retired_at is not None:
        return go(url_for("templates.show", template_id=template_id))
    form = template_form.as_asked(template)
    return _form_page(template_form.way_of(template), form, template=template)


@bp.post("/<int:template_id>/amend")
@admin_required
def amend(template_id: int) -> Response:
    """Build it again from other settings."""
    template = templates.get(template_id)
    way = template_form.way_of(template)
    form = template_form.WAYS[way]()
    form.choose(template.host)
    if form.validate():
        try:
            with transaction():
                templates.amend(me(), template, form.wish())
        except InvalidInput as error:
            form.refuse(error)
        except DomainError as error:
            flash(str(error), "error")
            return _page(templates.get(template_id), status=409)
        else:
            queue.wake(template.host.name)
            return go(url_for("templates.show", template_id=template_id))
    return _form_page(way, form, 422, templates.get(template_id))


@bp.get("/<int:template_id>/retire")
@admin_required
def ask_retire(template_id: int) -> Response:
    """What retiring means, before it is done."""
    template = templates.get(template_id)
    return render(
        "confirm.html",
        title=_("Retire %(name)s?", name=template.name),
        lead=_("Nobody can make a machine from it any more, and its image is deleted."),
        facts=[
            _("Machines that were made from it stay as they are, but cannot be rebuilt from it."),
            _("Its name can be used again."),
        ],
        action=url_for("templates.retire", template_id=template_id),
        button=_("Retire it"),
        back_url=url_for("templates.show", template_id=template_id),
        danger=True,
    )


@bp.post("/<int:template_id>/retire")
@admin_required
def retire(template_id: int) -> Response:
    """Offer it to nobody any more."""
    template = templates.get(template_id)
    try:
        with transaction():
            templates.retire(me(), template)
    except DomainError as error:
        flash(str(error), "error")
        return _page(templates.get(template_id), status=409)
    queue.wake(template.host.name)
    return go(url_for("templates.show", template_id=template_id))


def _form_page(way: str, form: NewForm, status: int = 200, template: Template | None = None) -> Response:
    """`template`: the one that failed and is to be built again."""
    ways = {
        "recipe": _("By a recipe"),
        "image": _("From an image"),
        "file": _("From a file"),
        "machine": _("From a machine"),
    }
    return render(
        "templates/new.html",
        status=status,
        errors_found=bool(form.errors),
        form=form,
        way=way,
        ways=ways,
        template=template,
        sources=settings().sources,
    )


def _page(template: Template, form: UseForm | None = None, status: int = 200) -> Response:
    sight = template_words.Sight(template, operations.last_of_template(template.id))
    if is_fragment() and not sight.busy:  # this answer ends the polling: say aloud how it went
        ready = template.state == TemplateState.READY and template.retired_at is None
        if sight.failed:
            flash(sight.failure, "message" if sight.cancelled else "error")
        else:
            flash(_("%(name)s is ready.", name=template.name) if ready else str(sight.state[1]))
    return render(
        "templates/show.html",
        fragment="templates/_state.html",
        status=status,
        errors_found=bool(form and form.errors),
        sight=sight,
        template=template,
        form=form or template_form.changing(template),
        kinds=template_words.KINDS,
        fits=templates.fits_driver(template),
        has_picture=template.id in pictures.having(),
    )
