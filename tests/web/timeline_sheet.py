"""The sheet that places bars without inline styles: `python -m tests.web.timeline_sheet` writes it."""

from pathlib import Path

from app.services.timeline import UNITS

FILE = Path(__file__).resolve().parents[2] / "app" / "static" / "timeline.css"
HEAD = (
    "/* Where bars lie: units of a week, 336 in all. Made by tests/web/timeline_sheet.py; a test holds it to that. */\n"
)


def sheet() -> str:
    """One class for each start, one for each width."""
    starts = "".join(f".s{number}{{left:{_share(number)}}}" for number in range(UNITS + 1))
    widths = "".join(f".w{number}{{width:{_share(number)}}}" for number in range(1, UNITS + 1))
    return f"{HEAD}{starts}\n{widths}\n"


def _share(units: int) -> str:
    return f"{units * 100 / UNITS:.3f}%".replace(".000%", "%")


if __name__ == "__main__":
    FILE.write_text(sheet())
