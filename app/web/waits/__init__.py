"""The waiting list's pages: one's own places and offers, joining and leaving, and for admins everybody's."""

from app.web.waits import pages
from app.web.waits.after import init_app
from app.web.waits.blueprint import bp, everybodys

__all__ = ["bp", "everybodys", "init_app", "pages"]
