"""FID, KID and LPIPS by their libraries' own networks, with random weights where the libraries keep downloaded ones."""

import json
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchmetrics
import torchvision
from helpers.evaluation import picture, saved, score, sentence
from image_prompt.evaluation.embedding import PictureEncoder
from image_prompt.evaluation.extras import Extras
from image_prompt.evaluation.matching import Group
from PIL import Image
from support import tiny_clip
from torch_fidelity import feature_extractor_inceptionv3 as inception

CPU = torch.device("cpu")
ALL = ["fid", "kid", "lpips"]
INCEPTION, ALEXNET = inception.URL_INCEPTION_V3.rsplit("/", 1)[1], "alexnet-owt-7be5be79.pth"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder as torch keeps downloads in. Layers that no measure reads take no room on disk."""
    folder = tmp_path_factory.mktemp("torch")
    torch.manual_seed(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        networks = {INCEPTION: inception.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])}
    networks[ALEXNET] = torchvision.models.alexnet(weights=None)
    made = folder / "hub" / "checkpoints"
    made.mkdir(parents=True)
    for name, network in networks.items():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
        state = network.state_dict()
        unread = {
            k: torch.zeros(1).expand(v.shape) for k, v in state.items() if k.startswith(("fc", "class"))
        }
        torch.save(state | unread, made / name)
    yield folder
    for path in made.iterdir():
        path.unlink()


@pytest.fixture
def with_weights(weights, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(weights))


@pytest.fixture
def without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def refused(*_):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "urlopen", refused)


def groups_of(*made):
    return [Group(f"r{n}", picture(n), tuple(each(n) for each in made), ()) for n in range(4)]


def small(images, side):
    values = [np.asarray(image.resize((side, side), Image.Resampling.LANCZOS)) for image in images]
    return torch.from_numpy(np.stack(values)).movedim(-1, 1)


def test_a_set_beside_itself_is_at_no_distance(with_weights):
    found = Extras(ALL, CPU).measure(groups_of(picture))
    assert found["fid"] == pytest.approx(0, abs=2e-3)
    assert found["lpips"] == 0
    # unbiased: below 0 for the very same pictures
    assert -0.1 < found["kid"] < 0


def test_they_are_what_the_formulas_give_by_the_same_features(with_weights):
    groups = groups_of(lambda n: picture(n + 50), lambda n: picture(n + 90))
    measures = Extras(ALL, CPU)
    found = measures.measure(groups)
    references, made = [group.reference for group in groups], [p for group in groups for p in group.generated]
    network = inception.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    real, fake = (network(small(each, 299))[0].double() for each in (references, made))
    assert found["fid"] == pytest.approx(frechet(real, fake), rel=1e-4)
    # over random subsets of as many as there are references
    assert found["kid"] == pytest.approx(kernel_distance(real, fake), rel=0.5)
    pairs = [(group.reference, p) for group in groups for p in group.generated]
    first, second = (small(each, 256) / 255 * 2 - 1 for each in zip(*pairs, strict=True))
    assert found["lpips"] == pytest.approx(perceptual(first, second), rel=1e-4)
    # again, and with other pictures between
    assert measures.measure(groups_of(picture)) != found
    assert measures.measure(groups) == found


def frechet(real, fake):
    """|m - m'|^2 + Tr(C + C' - 2 (C C')^0.5); the root's trace is the nuclear norm of A A'^T where C = A^T A."""
    a, b = ((each - each.mean(0)) / (len(each) - 1) ** 0.5 for each in (real, fake))
    root = torch.linalg.svdvals(a @ b.T).sum()
    return (
        (real.mean(0) - fake.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * root
    ).item()


def kernel_distance(real, fake):
    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x):
        return (kernel(x, x).sum() - kernel(x, x).trace()) / len(x) / (len(x) - 1)

    return (within(real) + within(fake) - 2 * kernel(real, fake).mean()).item()


def perceptual(first, second):
    """arXiv 1801.03924, eq. 1, with the published weights of its linear layers, which torchmetrics carries."""
    layers = torchvision.models.alexnet(weights="IMAGENET1K_V1").features.eval()
    folder = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models"
    linear = torch.load(folder / "alex.pth", map_location="cpu", weights_only=True)
    shift, scale = (
        torch.tensor(each).view(1, 3, 1, 1) for each in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450])
    )
    x, y, total = (first - shift) / scale, (second - shift) / scale, 0.0
    tapped = 0
    with torch.no_grad():
        for layer in layers:
            x, y = layer(x), layer(y)
            if isinstance(layer, torch.nn.ReLU):
                difference = (F.normalize(x) - F.normalize(y)).square()
                total += F.conv2d(difference, linear[f"lin{tapped}.model.1.weight"]).mean((1, 2, 3))
                tapped += 1
    return total.mean().item()


def test_one_picture_is_no_set(with_weights, caplog):
    found = Extras(ALL, CPU).measure([Group("r", picture(1), (picture(2), picture(3)), ())])
    assert [*found] == ["lpips"]
    assert "FID compares two sets, and one has 1 picture" in caplog.text


def test_the_command_writes_them(tmp_path, with_weights, capsys):
    references = saved(tmp_path / "references", "cat.png", "owl.png")
    made = saved(tmp_path / "made", "cat_0.png", "owl_0.png")
    clip = tiny_clip.write(tmp_path / "clip")
    assert score(references, tmp_path / "out", clip, f"mine={made}", "--extras", *ALL) == 0
    method = json.loads((tmp_path / "out" / "scores.json").read_text())["methods"]["mine"]
    assert (method["fid"], method["lpips"]) == (pytest.approx(0, abs=2e-3), 0)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    head, row = ([cell.strip() for cell in lines[n].split("|")][-4:-1] for n in (0, 2))
    assert head == ["FID", "KID", "LPIPS"]
    assert not {"-0.0000", "–"} & {row[0], row[2]}


@pytest.mark.parametrize("name", ALL)
def test_weights_that_cannot_be_fetched_are_a_sentence_before_anything_is_encoded(
    tmp_path, without_network, monkeypatch, caplog, name
):
    monkeypatch.setattr(PictureEncoder, "load", lambda _: pytest.fail("loaded"))
    references = saved(tmp_path / "references", "cat.png")
    made = saved(tmp_path / "made", "cat_0.png")
    clip = tiny_clip.write(tmp_path / "clip")
    assert score(references, tmp_path / "out", clip, f"mine={made}", "--extras", name) == 1
    told = sentence(caplog.records[-1].getMessage())
    assert told.startswith(f"{name.upper()} could not be loaded (<urlopen error Name or service not known>).")
    assert str(tmp_path / "torch" / "hub" / "checkpoints") in told
    assert "Traceback" not in caplog.text
