"""What people are told in a word: a plugin that cannot be used, and a cell that has no row."""

from importlib import metadata
from pathlib import Path

import pytest

import mechanisms
from attnbench import doctor, plugins, verbs
from attnbench.engine import codes
from attnbench.engine._freeze import PLUGINS
from attnbench.engine.store import Store
from tests import tiny


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No plugin before and none after."""
    monkeypatch.setenv(PLUGINS, "")
    monkeypatch.setattr(mechanisms.mechanisms, "guests", {})
    monkeypatch.setattr(mechanisms.mechanisms, "entries", dict(mechanisms.mechanisms.entries))


def test_the_doctor_says_why_what_a_package_announces_cannot_be_used(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for folder, text in (("torn_pack", "1 / 0\n"), ("whole_pack", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(text)
    (tmp_path / "whole_pack" / "hollow.py").write_text("x = 1\n")
    modules = ("torn_pack.mine", "whole_pack.gone", "whole_pack.hollow")
    points = [metadata.EntryPoint(module, module, plugins.GROUP) for module in modules]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == plugins.GROUP else [])
    found = {subject: (state, about) for subject, state, about in doctor.guests()}
    why = "the package of torn_pack.mine cannot be imported: ZeroDivisionError: division by zero."
    assert found["plugin mine"] == ("hurt", why)
    assert found["plugin gone"] == ("hurt", "an installed package announces whole_pack.gone, which is not there.")
    hollow = f"{tmp_path}/whole_pack/hollow.py registers nothing; a class under @register('hollow', ...) is its entry."
    assert found["plugin hollow"] == ("hurt", hollow)


@pytest.mark.parametrize("message", ["why it is so", "why it is so."])
def test_a_cell_that_was_set_aside_is_told_with_one_full_stop(message, tmp_path: Path, capsys):
    store = Store(tmp_path)
    id = store.ask(tiny.spec())
    for _ in range(2):
        error = {"type": "ValueError", "message": message, "frame": "f", "traceback": ""}
        store.begin(id, where={}).end("error", error=error, signature="s")
    assert verbs.not_done(store, id) == codes.SET_ASIDE
    told = capsys.readouterr().err
    assert "set aside: ValueError: why it is so. Logs: " in told
