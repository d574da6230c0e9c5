"""Small models and prompts, built once for each family."""

import os
import shutil

from bootstrap import start_host

start_host()  # before its modules are imported, here and in the tests

import folder_paths
import pytest
from helpers import sd3, stand_ins
from helpers.beside import has_hooks
from helpers.evaluation import painted
from helpers.heat import ByHand
from image_prompt import host
from support import tiny, tiny_clip, transformer
from support.prompts import make_adapter


@pytest.fixture(autouse=True)
def own_user_folder(tmp_path, monkeypatch):
    """What nodes remember of files stays out of the host's own folder."""
    if hasattr(folder_paths, "get_user_directory"):
        monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path / "user"))


@pytest.fixture(scope="session", params=["SD1.5", "SDXL"])
def family(request):
    return tiny.FAMILIES[request.param]


@pytest.fixture(scope="session")
def model(family):
    return tiny.host_model(family)


@pytest.fixture(scope="session")
def encoder():
    return tiny.clip_vision()


@pytest.fixture(scope="session")
def prompt(family, encoder):
    return host.encode_prompt(make_adapter("base", family), encoder, host.Reference(tiny.picture(1)))


@pytest.fixture(scope="session")
def other_prompt(family, encoder):
    """Of another adapter, a 'plus' one, and another picture."""
    return host.encode_prompt(make_adapter("plus", family, seed=20), encoder, host.Reference(tiny.picture(2)))


@pytest.fixture(scope="session")
def sd15():
    return tiny.host_model(tiny.SD15)


@pytest.fixture(scope="session")
def sd15_prompt(encoder):
    return host.encode_prompt(make_adapter("base", tiny.SD15), encoder, host.Reference(tiny.picture(1)))


@pytest.fixture(scope="session")
def public_models(tmp_path_factory):
    return stand_ins.write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def models(public_models, tmp_path, monkeypatch):
    """Models under their public names, in a folder of the test's own."""
    shutil.copytree(public_models, tmp_path, copy_function=os.link, dirs_exist_ok=True)
    stand_ins.use_models(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Folder of a small CLIP model in transformers' layout."""
    return tiny_clip.write(tmp_path_factory.mktemp("encoders") / "tiny")


@pytest.fixture
def references(tmp_path):
    """Folder of pictures to evaluate with."""
    return painted(tmp_path / "references", "cat.png", "dog.png", "owl.png", "yak.png")


@pytest.fixture(params=["stand-in", pytest.param("host", marks=has_hooks)])
def sd3_world(request, monkeypatch):
    if request.param == "host":
        return sd3.OnHost
    transformer.install_hooks(monkeypatch)
    return sd3.StandIn


@pytest.fixture
def sd3_model(sd3_world):
    return sd3_world.make(sd3.BLOCKS)


@pytest.fixture
def sd3_prompt():
    return sd3.prompt_of()


@pytest.fixture
def by_hand(monkeypatch):
    return ByHand(monkeypatch)
