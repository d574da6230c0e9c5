"""Both UNet families, each with its twin in diffusers, built once for the whole folder."""

from bootstrap import start_host

start_host()  # before its modules are imported, here and in the tests

import pytest
from image_prompt.ipadapter_core.attention import AtSite
from support import parity


@pytest.fixture(params=["SD1.5", "SDXL"])
def twins(request):
    """The same random network on both sides."""
    return parity.twins(request.param)


@pytest.fixture
def called(monkeypatch):
    """The site residuals that ran, one entry a call."""
    calls, add_to = [], AtSite.add_to

    def counted(self, *args, **options):
        calls.append(self)
        return add_to(self, *args, **options)

    monkeypatch.setattr(AtSite, "add_to", counted)
    return calls
