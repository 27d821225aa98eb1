"""The sandbox in which every script is started."""

import pytest
from launch_sandbox import Sandbox


@pytest.fixture
def sandbox(tmp_path) -> Sandbox:
    return Sandbox(tmp_path)
