"""`python -m app.cli` is `berth`."""

from app.cli import main

main()
