"""A person takes a backup home: asked for on the page, handed out by the host's agent; without JavaScript, too."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import BrowserContext

from tests.browser.demo import Demo
from tests.browser.reader import Reader
from tests.runtime.running import wait_for


def test_a_backup_is_made_and_downloaded(demo: Demo, window: Callable[..., BrowserContext], tmp_path: Path) -> None:
    person = demo.person("Li Wei", machine_on="sim1")
    reader = Reader(window(demo.url, js=False, accept_downloads=True).new_page(), js=False).sign_in(person)
    reader.page.goto(f"/machines/{person}")
    reader.click("link", "Backup")
    reader.click("button", "Make a backup")
    reader.sees_heading(person)
    download = reader.page.get_by_role("button", name="Download", exact=True)

    def there() -> bool:
        reader.page.goto(f"/machines/{person}/backup")
        return download.is_visible()

    wait_for(there, 60, "it is made")
    with reader.page.expect_download() as got:
        download.click()
    assert got.value.suggested_filename.startswith(f"{person}-20")
    got.value.save_as(tmp_path / "back.tar.gz")
    with tarfile.open(tmp_path / "back.tar.gz") as archive:
        assert archive.getnames() == ["backup/README"]
    reader.check()  # no word of the console's: the page's policy lets the browser go there
