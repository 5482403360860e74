"""Ports that cannot be are said in one line."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from medaug.cli import main


@pytest.mark.parametrize("port", ["99999", "0", "-1", "abc"])
def test_a_port_that_cannot_be_is_refused(port: str) -> None:
    result = CliRunner().invoke(main, ["ui", "--port", port])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: Invalid value for '--port': ")
