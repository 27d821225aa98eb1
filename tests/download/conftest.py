import pytest
from mirror import Mirror


@pytest.fixture
def mirror():
    mirror = Mirror()
    yield mirror
    mirror.close()
