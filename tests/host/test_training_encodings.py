"""What a picture is trained as: its reference, its views, its face, the precision of its latents; encoded once."""

import pytest
import torch
from helpers.training import (
    CONFIG,
    SIZES,
    Remembers,
    SeededClip,
    TinyBase,
    captioned,
    changed,
    picture_folder,
    saved,
    trainer,
)
from image_prompt.host.training import HostBase
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.noise import View
from image_prompt.training.cache import Disk
from image_prompt.training.data_sets import DataSet
from image_prompt.training.draws import Draws
from image_prompt.training.encoded import Encodings
from image_prompt.training.pictures import find_pictures
from PIL import Image
from support import tiny


@pytest.fixture(scope="module")
def base(encoder):
    return TinyBase(tiny.SD15, tiny.host_model(tiny.SD15), encoder)


@pytest.fixture
def folder(tmp_path):
    return picture_folder(tmp_path / "data")


# --- references ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["column", "rule"])
def test_the_image_prompt_may_be_another_picture(base, folder, how):
    (folder / "list.csv").write_text(
        "file,text,reference\n" + "".join(f"{n}.png,a,faces/{n}.png\n" for n in range(3))
    )
    (folder / "plain.csv").write_text("file,text\n" + "".join(f"{n}.png,a\n" for n in range(3)))
    rule = {
        "column": DataSet(str(folder / "list.csv")),
        "rule": DataSet(str(folder / "plain.csv"), 1.0, "faces/{stem}.png"),
    }
    rows, _ = Encodings(base, CONFIG, find_pictures(rule[how]), SIZES, {}).batch([0, 2])
    own, _ = Encodings(base, CONFIG, find_pictures(folder / "plain.csv"), SIZES, {}).batch([0, 2])
    faces = find_pictures(folder / "faces")
    wanted = base.features(Variant.BASE, faces.picture(0), faces.picture(2))
    torch.testing.assert_close(rows["features"], wanted)
    assert torch.equal(rows["latents"], own["latents"])
    assert not torch.allclose(rows["features"], own["features"], atol=1e-3)


def test_a_picture_without_its_reference_is_left_out_by_name(folder):
    (folder / "faces" / "1.png").unlink()
    (folder / "plain.csv").write_text("file,text\n" + "".join(f"{n}.png,a\n" for n in range(3)))
    found = find_pictures(DataSet(str(folder / "plain.csv"), 1.0, "faces/{stem}.png"))
    assert list(found.left_out) == ["1.png"]
    assert "its reference" in found.left_out["1.png"]
    with pytest.raises(SettingError, match="is no rule"):
        find_pictures(DataSet(str(folder / "plain.csv"), 1.0, "faces/{stm}.png"))


def test_another_reference_is_encoded_anew(base, folder, tmp_path):
    store = Disk(tmp_path / "cache")
    sets = DataSet(str(folder / "plain.csv"), 1.0, "faces/{stem}.png")
    (folder / "plain.csv").write_text("file,text\n0.png,a\n1.png,b\n")
    first, _ = Encodings(base, CONFIG, find_pictures(sets), SIZES, store).batch([0, 1])
    saved(folder / "faces" / "0.png", 77, 40)
    second, _ = Encodings(base, CONFIG, find_pictures(sets), SIZES, store).batch([0, 1])
    changed_rows = [not torch.equal(a, b) for a, b in zip(first["features"], second["features"], strict=True)]
    assert changed_rows == [True, False]


# --- views ---------------------------------------------------------------------------------------------------------------


def test_a_mirrored_picture_is_mirrored_for_both(base):
    data = Encodings(base, changed(flip=True), captioned(), SIZES, {})
    rows, _ = data.batch([0, 0], [View(), View(flip=True)])
    picture = data.pictures.picture(0)
    torch.testing.assert_close(rows["latents"][1:], base.latents(picture.flip(2)))
    torch.testing.assert_close(rows["features"][1:], base.features(Variant.BASE, picture.flip(2)))
    assert torch.equal(rows["context"][0], rows["context"][1])


def test_random_crops_cut_elsewhere_and_say_so(base, tmp_path):
    saved(tmp_path / "wide.png", 1, 64)
    Image.open(tmp_path / "wide.png").resize((256, 64)).save(tmp_path / "wide.png")
    data = Encodings(base, changed(crops=3), find_pictures(tmp_path), SIZES, {})
    rows, crops = data.batch([0, 0, 0], [View(place=n) for n in range(3)])
    assert len({crop.top_left for crop in crops}) > 1
    assert not torch.equal(rows["latents"][0], rows["latents"][1])
    assert torch.equal(rows["features"][0], rows["features"][1])


def test_one_of_several_captions_is_shown(base, folder):
    data = Encodings(base, changed(captions="random"), find_pictures(folder), SIZES, {})
    rows, _ = data.batch([0, 0, 0], [View(caption=None), View(caption=0.1), View(caption=0.9)])
    wanted = [base.texts([text]).context for text in ("line one of 0\nline two", "line one of 0", "line two")]
    assert torch.equal(rows["context"], torch.cat(wanted))


def test_each_part_of_a_view_is_cached_once(base, tmp_path, monkeypatch):
    store = Disk(tmp_path)
    views = [View(flip=flip, place=place) for flip in (False, True) for place in (0, 1)]
    config = changed(flip=True, crops=2)
    first, _ = Encodings(base, config, captioned(), SIZES, store).batch([0] * 4, views)
    # of latents, features, and the text: of two places of a square picture there is one
    assert len(store) == 2 + 2 + 1
    data = Encodings(base, config, captioned(), SIZES, store)
    for name in ("features", "latents", "texts"):
        monkeypatch.setattr(base, name, lambda *_: pytest.fail("encoded again"), raising=False)
    second, _ = data.batch([0] * 4, views)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_with_views_resumes_to_the_same_weights(base, tmp_path):
    config = changed(flip=True, crops=2, captions="random", latents="mode", steps=4, min_snr=5.0)
    whole, seen = trainer(config, base, tmp_path / "whole"), Remembers()
    whole.run(seen)
    trainer(config, base, tmp_path / "parts").run(Remembers(stop_after=2))
    rest = trainer(config, base, tmp_path / "parts")
    assert rest.resume() == 2
    rest.run(Remembers())
    pairs = zip(whole.trainable.parameters(), rest.trainable.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# --- caches --------------------------------------------------------------------------------------------------------------


def test_a_batch_reads_no_more_than_its_own_pictures(base, monkeypatch):
    """However many there are: the time of a batch does not grow with them."""
    data = Encodings(base, CONFIG, captioned(6), SIZES, {})
    touched = []
    item = type(data.crops).__getitem__
    monkeypatch.setattr(type(data.crops), "__getitem__", lambda own, n: touched.append(n) or item(own, n))
    data.batch([4, 2])
    assert sorted(set(touched)) == [2, 4]


def test_a_half_cache_is_half_as_large_and_what_it_returns_is_what_it_holds(base, tmp_path):
    sizes, rows = [], []
    for half in (False, True):
        store = Disk(tmp_path / str(half))
        data = Encodings(base, CONFIG, captioned(), SIZES, store, half)
        rows.append(data.batch([0, 1])[0])
        again = Encodings(base, CONFIG, captioned(), SIZES, store, half).batch([0, 1])[0]
        assert all(torch.equal(rows[-1][name], again[name]) for name in again)
        assert {tensor.dtype for tensor in again.values()} == {torch.float32}
        sizes.append((sum(file.stat().st_size for file in (tmp_path / str(half)).glob("*/*")), data.bytes))
    assert sizes[1][1] * 2 == sizes[0][1]
    assert 0.45 < sizes[1][0] / sizes[0][0] < 0.6
    assert all(torch.allclose(rows[0][name], rows[1][name], rtol=1e-3, atol=1e-3) for name in rows[0])


def test_the_size_of_the_cache_is_known_before_it_is_there(base):
    data = Encodings(base, CONFIG, captioned(6), SIZES, {})
    said = data.bytes
    data.batch(list(range(6)))
    assert said == sum(t.numel() * 4 for rows in data.store.values() for t in rows.values())


# --- latents -------------------------------------------------------------------------------------------------------------


class Regularization(torch.nn.Module):
    """The host's of August 2024, which draws a sample."""

    sample = True

    def forward(self, moments):
        mean, log_variance = moments.chunk(2, 1)
        return mean + (0.5 * log_variance).exp() * torch.randn_like(mean), {}


class Moments(torch.nn.Module):
    """As much of the host's VAE as encodes: moments, and what is made of them."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 8, 8)
        self.regularization = Regularization()

    def encode(self, pictures):
        found = self.regularization(self.conv(pictures))
        return found[0]


class Vae:
    def __init__(self, dtype):
        torch.manual_seed(0)
        self.first_stage_model, self.vae_dtype = Moments().to(dtype), dtype
        self.first_stage_model.requires_grad_(False)

    def encode(self, pictures):
        return self.first_stage_model.encode(pictures.movedim(-1, 1).to(self.vae_dtype)).float()


def of_vae(base, dtype=torch.float32):
    return HostBase(base.model, Vae(dtype), SeededClip(tiny.SD15), base.clip_vision)


def test_latents_are_the_mode_in_full_precision_whatever_the_host_chose(base):
    picture = tiny.picture(1, 64, 64)
    exact, half = of_vae(base), of_vae(base, torch.bfloat16)
    network = exact.vae.first_stage_model
    mean = network.conv(picture.movedim(-1, 1)).chunk(2, 1)[0]
    torch.testing.assert_close(exact.latents(picture), base.model.model.process_latent_in(mean))
    half.compute_in(changed(vae="auto"))
    full = half.latents(picture)
    # its weights are rounded, what it computes in is not
    assert half.vae.first_stage_model.conv.weight.dtype is torch.bfloat16
    weights = half.vae.first_stage_model.conv.float()
    torch.testing.assert_close(
        full, base.model.model.process_latent_in(weights(picture.movedim(-1, 1)).chunk(2, 1)[0])
    )
    other = of_vae(base, torch.bfloat16)
    other.compute_in(changed(vae="host"))
    assert (other.latents(picture) - full).abs().max() > 1e-4


def test_sampled_latents_have_the_distribution_and_change_with_the_batch(base, tmp_path):
    made = of_vae(base)
    config = changed(latents="sampled")
    made.compute_in(config)
    picture = tiny.picture(1, 64, 64)
    mean, log_variance = made.vae.first_stage_model.conv(picture.movedim(-1, 1)).chunk(2, 1)
    rows = made.latents(picture)
    assert rows.shape[1] == 8
    scaled = base.model.model.process_latent_in
    torch.testing.assert_close(rows[:, :4], scaled(mean))
    torch.testing.assert_close(rows[:, 4:], scaled((0.5 * log_variance).exp()), rtol=1e-4, atol=1e-5)
    own = trainer(config, made, tmp_path)
    draws = Draws(config, own.data, own.sampler)
    shape = draws.shape(own.data.batch([0, 1])[0])
    assert shape == (2, 4, 8, 8)
    drawn = [draws.latents(own.data.batch([0, 1])[0], batch, shape, slice(0, 2)) for batch in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    own.run(Remembers())


def test_a_vae_without_a_distribution_cannot_be_sampled_from(base):
    made = HostBase(base.model, base.vae, SeededClip(tiny.SD15), base.clip_vision)
    made.compute_in(changed(latents="sampled"))
    with pytest.raises(SettingError, match="no distribution to draw from"):
        made.latents(tiny.picture(1, 64, 64))
