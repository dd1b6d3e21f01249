import io
import logging
import sys

import pytest

from affectlens.data.progress import LOG_INTERVAL, Progress, track


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="affectlens")
    return lambda: [record.getMessage() for record in caplog.records]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_line_gives_rate_and_rest_from_the_resume_offset():
    now = [0.0]
    progress = Progress(1000, "tokens", "harvest", done=400, clock=lambda: now[0])
    now[0] = 10.0
    progress.update(100)
    assert progress.line() == ("harvest: 500 of 1,000 tokens (50%), 10.0 tokens/s, 0:50 left")


def test_long_rest_and_nothing_done():
    now = [0.0]
    progress = Progress(10_000, "steps", "train", clock=lambda: now[0])
    assert "unknown left" in progress.line()
    now[0] = 1.0
    progress.update(1)
    assert "2:46:39 left" in progress.line()


def test_log_lines_are_ten_seconds_apart(lines):
    now = [0.0]
    progress = Progress(100, "tokens", "harvest", clock=lambda: now[0])
    for _ in range(30):
        now[0] += 1.0
        progress.update(1)
    assert len(lines()) == 30 // LOG_INTERVAL


def test_without_a_terminal_the_end_is_logged(lines):
    with track(10, "tokens", "harvest", quiet=False) as progress:
        progress.update(10)
    assert len(lines()) == 1
    assert "10 of 10 tokens (100%)" in lines()[0]


def test_quiet_and_failed_tasks_say_nothing(lines):
    with track(10, "tokens", "harvest", quiet=True) as progress:
        progress.update(10)
    with pytest.raises(RuntimeError), track(10, "tokens", "harvest"):
        raise RuntimeError
    assert lines() == []


def test_bar_on_a_terminal_only_and_on_standard_error(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with track(10, "tokens", "harvest", start=5, quiet=False) as progress:
        progress.update(5)
    assert "harvest" in terminal.getvalue()
    assert "10.0/10.0" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_logger_level_makes_it_quiet(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(logging.getLogger("affectlens"), "level", logging.WARNING)
    with track(10, "tokens", "harvest") as progress:
        progress.update(10)
    assert terminal.getvalue() == ""


def test_empty_task():
    with track(0, "tokens", "harvest", quiet=False) as progress:
        assert "0 of 0 tokens (100%)" in progress.line()
