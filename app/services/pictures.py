"""Pictures of templates: whatever an admin sends is read as a picture, and drawn anew as a small PNG."""

from __future__ import annotations

import io

from PIL import Image, ImageOps, UnidentifiedImageError
from sqlalchemy import or_, select

from app.errors import InvalidInput, NotFound
from app.extensions import db
from app.language import gettext as _
from app.models import Template, User

MOST_BYTES = 512 << 10
MOST_PIXELS = 4096 * 4096  # a few bytes can stand for any number of them
SIDE = 192  # pixels of the picture that is kept, at most
_KINDS = ("PNG", "JPEG", "WEBP")


def redraw(content: bytes) -> bytes:
    """A PNG of the picture, without anything that was hidden in it. Raises InvalidInput naming `picture`."""
    if len(content) > MOST_BYTES:
        raise InvalidInput(_("A picture has %(count)s KiB at most.", count=MOST_BYTES >> 10), field="picture")
    try:
        with Image.open(io.BytesIO(content), formats=_KINDS) as sent:
            if sent.width * sent.height > MOST_PIXELS:
                raise InvalidInput(_("That picture has too many pixels."), field="picture")
            drawn = ImageOps.exif_transpose(sent).convert("RGBA")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InvalidInput(_("That is no PNG, JPEG or WebP picture."), field="picture") from error
    drawn.thumbnail((SIDE, SIDE))
    plain = Image.new("RGBA", drawn.size)
    plain.paste(drawn)  # the pixels alone: no words, no profile
    made = io.BytesIO()
    plain.save(made, "PNG", optimize=True)
    return made.getvalue()


def of_template(user: User, template_id: int) -> bytes:
    """The PNG of a template that this person is offered, an admin of every one. Raises NotFound."""
    query = select(Template.picture).where(Template.id == template_id, Template.picture.is_not(None))
    if not user.is_admin:
        query = query.where(Template.retired_at.is_(None))
        query = query.where(or_(Template.for_everyone, Template.users.any(User.id == user.id)))
    found = db.session.scalar(query)
    if found is None:
        raise NotFound(_("There is no such picture."))
    return found


def having() -> set[int]:
    """The templates that have a picture."""
    return set(db.session.scalars(select(Template.id).where(Template.picture.is_not(None))))
