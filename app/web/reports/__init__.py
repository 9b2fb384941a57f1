"""Reports: what was booked, attached and busy. Admins see all of it, owners their team's, and everybody their own."""

from app.web.reports import files, pages  # noqa: F401 - their routes
from app.web.reports.blueprint import bp

__all__ = ["bp"]
