"""The command and its server: refused before anything heavy is loaded, a port of one's own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from affectlens.data.errors import ConfigError, MachineError
from affectlens.demo.serve import LOCAL, bound, check_host, is_local

_COMMAND = """
import sys, typer
from affectlens import cli_demo
from affectlens.cli_runtime import call
app = typer.Typer()
app.callback()(lambda: None)
cli_demo.register(app)
code = call(typer.main.get_command(app), sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(code)
"""

_SERVER = """
import sys, threading, time
from affectlens.demo.serve import LOCAL, bound, serve
def load():
    time.sleep(600)
with bound(LOCAL, 0) as (sock, url):
    print(url, flush=True)
    serve(load, sock)
print("stopped", flush=True)
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_this_machine_is_served(host: str) -> None:
    assert is_local(host)
    check_host(host, allow_remote=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "box.example", ""])
def test_another_host_must_be_allowed(host: str) -> None:
    with pytest.raises(ConfigError, match="--allow-remote"):
        check_host(host, allow_remote=False)
    check_host(host, allow_remote=True)


def test_port_0_takes_a_free_one_and_a_taken_one_is_said() -> None:
    with bound(LOCAL, 0) as (sock, url):
        port = sock.getsockname()[1]
        assert url == f"http://127.0.0.1:{port}/"
        sock.listen()
        with pytest.raises(MachineError, match=f"{port} cannot be used"), bound(LOCAL, port):
            pass
    with socket.socket() as again:
        again.bind((LOCAL, port))


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--host", "0.0.0.0"], 2, "--allow-remote"),
        ([], 3, "holds no search"),
    ],
)
def test_arguments_are_checked_before_torch_is_imported(
    tmp_path: Path, arguments: list[str], code: int, word: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, "demo", str(tmp_path), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert word in done.stderr


def test_an_interrupt_ends_the_server_cleanly() -> None:
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        _answers(url)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.strip() == "stopped"
    assert "Traceback" not in err


def _answers(url: str) -> None:
    import httpx

    from .demo_world import until

    def there() -> bool:
        try:
            return httpx.get(f"{url}api/status", timeout=5).json()["state"] == "loading"
        except httpx.TransportError:
            return False

    until(there)
