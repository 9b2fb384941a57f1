"""The rules that place bars without inline styles: `python -m tests.web.timeline_sheet` writes them into app.css.

In there and not in a file of their own: the calendar's first view is to take six requests.
"""

from pathlib import Path

from app.services.timeline import UNITS

FILE = Path(__file__).resolve().parents[2] / "app" / "static" / "app.css"
HEAD = (
    "/* Where bars lie: units of a week, 336 in all. Made by tests/web/timeline_sheet.py; a test holds it to that. */"
)


def sheet() -> str:
    """One class for each start, one for each width."""
    starts = "".join(f".s{number}{{left:{_share(number)}}}" for number in range(UNITS + 1))
    widths = "".join(f".w{number}{{width:{_share(number)}}}" for number in range(1, UNITS + 1))
    return f"{starts}\n{widths}\n"


def _share(units: int) -> str:
    return f"{units * 100 / UNITS:.3f}%".replace(".000%", "%")


def parted() -> tuple[str, str]:
    """What app.css has above, and the rules it has now."""
    above, _head, below = FILE.read_text().partition(f"{HEAD}\n")
    return above, below


if __name__ == "__main__":
    FILE.write_text(f"{parted()[0]}{HEAD}\n{sheet()}")
