from __future__ import annotations

from alembic import command
from alembic.script import ScriptDirectory

from app import schema
from tests import postgres


def test_up_down_up_and_the_models_agree(admin_url: str) -> None:
    with postgres.database(admin_url) as url:
        schema.upgrade(url)
        schema.downgrade(url, "base")
        schema.upgrade(url)
        command.check(schema.alembic_config(url))


def test_each_step_goes_back_and_forth(admin_url: str) -> None:
    scripts = ScriptDirectory.from_config(schema.alembic_config("postgresql://"))
    with postgres.database(admin_url) as url:
        for script in reversed(list(scripts.walk_revisions())):
            schema.upgrade(url, script.revision)
            schema.downgrade(url, str(script.down_revision or "base"))
            schema.upgrade(url, script.revision)


def test_they_are_numbered_and_have_one_head() -> None:
    scripts = ScriptDirectory.from_config(schema.alembic_config("postgresql://"))
    numbers = sorted(script.revision for script in scripts.walk_revisions())
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
    assert scripts.get_heads() == [numbers[-1]]
