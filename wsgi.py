"""The portal, for a WSGI server: `gunicorn wsgi:app`."""

import gc
import logging

from sqlalchemy.exc import SQLAlchemyError

from app import create_app
from app.extensions import db, settings, transaction
from app.services import zones

app = create_app()
with app.app_context():
    try:
        with transaction():
            zones.write(settings().timezone)
    except SQLAlchemyError:
        logging.getLogger(__name__).warning("no database: agents go by the zone that was written down last")
    db.session.remove()
    db.engine.dispose()  # a server may make its processes of this one, and no connection is for two
gc.freeze()  # what is here by now stays: each full collection would look through it, in the middle of somebody's page
