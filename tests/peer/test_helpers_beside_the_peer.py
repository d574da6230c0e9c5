"""Helper nodes beside the de-facto pack's, same call: with exact legacy results the same to the last bit, or 1e-6."""

import itertools
import random

import pytest
import torch
from image_prompt.nodes.compat import embeds, pictures, regions, schedules, settings
from image_prompt.nodes.compat.arithmetic.combine_features import MODES
from image_prompt.nodes.compat.arithmetic.crop import POSITIONS
from image_prompt.nodes.compat.arithmetic.masked_tiles import masked_tiles
from image_prompt.nodes.compat.arithmetic.noise import KINDS, first_generation_noise
from image_prompt.nodes.compat.arithmetic.prepare import for_insightface
from image_prompt.nodes.compat.arithmetic.resampling import FILTERS
from image_prompt.nodes.compat.arithmetic.schedules import METHODS, TIMINGS
from image_prompt.nodes.compat.arithmetic.tiles import tiled
from support import peer, tiny
from support.peer import first_pack

pytestmark = pytest.mark.peer
OURS = {**pictures.CLASSES, **embeds.CLASSES, **schedules.CLASSES, **regions.CLASSES}
SIZES = ((64, 64), (64, 96), (96, 64), (50, 81), (301, 223), (224, 224), (224, 300))


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setenv(settings.EXACT_LEGACY.variable, "1")


def both(node_id, **inputs):
    """(theirs, ours) of a node, the global generators as they were for each."""
    results = []
    for classes in (peer.pack().NODE_CLASS_MAPPINGS, OURS):
        before = torch.get_rng_state()
        random.seed(3)
        results.append(peer.run(classes, node_id, **inputs))
        torch.set_rng_state(before)
    return results


def picture(size, count=1, by_pixel=True):
    """As LoadImage leaves it in memory, by pixel, or as a VAE does, by plane; dark enough not to leave 8 bits."""
    image = tiny.picture(1, *size, count) * 0.9
    return image.contiguous() if by_pixel else image


# --- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("size", SIZES)
def test_prepared_pictures(size, position):
    for name, sharpening in itertools.product(FILTERS, (0.0, 0.5, 1.0)):
        theirs, ours = both(
            "PrepImageForClipVision",
            image=picture(size, 2),
            interpolation=name,
            crop_position=position,
            sharpening=sharpening,
        )
        assert torch.equal(ours[0], theirs[0]), (name, sharpening)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_noise(size, kind):
    for strength, count, by_pixel in itertools.product((0.0, 0.4, 1.0), (1, 2), (True, False)):
        image = picture(size, count, by_pixel)
        theirs, ours = both("IPAdapterNoise", type=kind, strength=strength, blur=0, image_optional=image)
        assert torch.equal(ours[0], theirs[0]), (strength, count, by_pixel)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_of_nothing_and_blurred(kind):
    theirs, ours = both("IPAdapterNoise", type=kind, strength=0.5, blur=0)
    assert torch.equal(ours[0], theirs[0])
    theirs, ours = both("IPAdapterNoise", type=kind, strength=0.5, blur=4, image_optional=picture((60, 97)))
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "size", [*SIZES, (64, 80), (64, 85), (64, 86), (64, 200), (64, 300), (300, 64), (33, 301)]
)
def test_tiles_and_their_masks(size):
    setup = peer.setup("SD1.5", "base")
    generator = torch.Generator().manual_seed(9)
    masks = (None, torch.rand(2, 50, 60, generator=generator))
    for (count, mask), sharpening in itertools.product(zip((2, 1), masks, strict=True), (0.0, 0.4)):
        image = picture(size, count)
        given = {} if mask is None else {"attn_mask": mask}
        _, tiles, parts = peer.theirs(
            "IPAdapterTiled",
            model=setup.model,
            ipadapter=setup.adapter,
            clip_vision=setup.encoder,
            image=image,
            sharpening=sharpening,
            **given,
        )
        ours = tiled(image, mask, sharpening, exact=True)
        assert torch.equal(ours[0], tiles)
        assert torch.equal(ours[1], parts)


# --- embeds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(2, 49), (2, 17, 64)])
def test_combined_embeds(shape, mode):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for given in (
        {"embed1": rows, "embed2": rows * 2 + 1, "embed4": rows[:1]},
        {"embed1": rows},
        {"embed1": rows[:1]},
    ):
        theirs, ours = both("IPAdapterCombineEmbeds", method=mode, **given)
        torch.testing.assert_close(ours[0], theirs[0], atol=1e-6, rtol=0, equal_nan=True)


def test_files_of_either_read_alike(tmp_path, monkeypatch):
    import folder_paths

    for name in ("input", "output"):
        monkeypatch.setattr(folder_paths, f"get_{name}_directory", lambda: str(tmp_path))
    saver = peer.pack().NODE_CLASS_MAPPINGS["IPAdapterSaveEmbeds"]()
    saver.output_dir = str(tmp_path)
    rows = torch.randn(2, 17, 64)
    saver.save(rows, "theirs")
    peer.run(OURS, "IPAdapterSaveEmbeds", embeds=rows, filename_prefix="ours")
    for name in ("theirs_00001.ipadpt", "ours_00001.ipadpt"):
        assert torch.equal(peer.run(OURS, "IPAdapterLoadEmbeds", embeds=name)[0], rows)
        assert torch.equal(torch.load(tmp_path / name), rows)


# --- weights -----------------------------------------------------------------------------------------------------


def numbered(count):
    return torch.arange(float(count)).view(count, 1, 1, 1).expand(count, 2, 2, 3) if count else None


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("method", METHODS)
def test_weights_and_prompts(timing, method):
    """Lists are equal to the last bit. What the pack cannot compute is left out; ours then gives weights."""
    compared = crashed = 0
    options = itertools.product(
        ("1,0", "0.2, .9\n .4,,", ""), (0, 1, 6), (0, 2, 8), (9999, 0, 4), (0, 2), (0, 1), range(5)
    )
    for weights, frames, start, end, before, after, count in options:
        given = {
            "weights": weights,
            "timing": timing,
            "frames": frames,
            "start_frame": start,
            "end_frame": end,
            "add_starting_frames": before,
            "add_ending_frames": after,
            "method": method,
            "image": numbered(count),
        }
        try:
            theirs, ours = both("IPAdapterWeights", **given)
        except (IndexError, ZeroDivisionError):
            peer.run(OURS, "IPAdapterWeights", **given)
            crashed += 1
            continue
        assert ours[:3] == theirs[:3]
        assert ours[5] == theirs[5]
        for our, their in zip(ours[3:5], theirs[3:5], strict=True):
            assert (our is None) == (their is None)
            assert our is None or torch.equal(our, their)
        for prompt in ("a\nb\n\n c ", "", 'say "hi"'):
            schedules = both(
                "IPAdapterPromptScheduleFromWeightsStrategy", weights_strategy=theirs[5], prompt=prompt
            )
            assert schedules[0] == schedules[1]
        compared += 1
    assert compared > crashed


def test_weights_of_a_strategy():
    strategy = peer.theirs(
        "IPAdapterWeights", weights="1,0", frames=3, method="shift batches", image=numbered(4)
    )[5]
    theirs, ours = both("IPAdapterWeightsFromStrategy", weights_strategy=strategy, image=numbered(2))
    assert ours[:3] == theirs[:3]
    assert ours[5] == theirs[5]
    assert len(set(map(str, both("IPAdapterCombineWeights", weights_1=[0.1, 0.2], weights_2=0.5)))) == 1


# --- regions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [True, False])
def test_regions(masked):
    text = [[torch.zeros(1, 7, 8), {"pooled_output": None}]]
    given = {
        "image": picture((8, 8)),
        "image_weight": 0.7,
        "prompt_weight": 1.3,
        "positive": text,
        "end_at": 0.6,
    }
    given |= {"mask": torch.rand(1, 8, 8)} if masked else {}
    theirs, ours = both("IPAdapterRegionalConditioning", **given)
    assert str(ours) == str(theirs)
    both_twice = both("IPAdapterCombineParams", params_1=theirs[0], params_2=ours[0])
    assert str(both_twice[0]) == str(both_twice[1])


# --- the first generation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_noise_of_the_first_generation(size):
    """A Gaussian of another rounding moves a few pixels by a little: far below a step of 8 bits."""
    for noise, count in itertools.product((0.1, 0.5, 1.0), (1, 2)):
        image = picture(size, count)
        theirs = first_pack().image_add_noise(image, noise)
        torch.testing.assert_close(first_generation_noise(image, noise), theirs, atol=5e-5, rtol=0)


@pytest.mark.parametrize("size", [*SIZES, (300, 500), (100, 110), (110, 100), (105, 103)])
def test_masked_tiles_of_the_first_generation(size):
    for short_side in (1, 2, 3):
        theirs = first_pack().masked_tiling(picture(size), short_side, 0.6)
        ours = masked_tiles(picture(size), short_side, 0.6, exact=True)
        for our, their in zip((ours[0], torch.stack(ours[1])), theirs, strict=True):
            torch.testing.assert_close(our, their, atol=1e-6, rtol=0)


@pytest.mark.parametrize("position", [p for p in POSITIONS if p != "pad"])
def test_pictures_for_insightface(position):
    """Its border is 255 on a picture of 0..1; ours is white."""
    node = first_pack().NODE_CLASS_MAPPINGS["PrepImageForInsightFace"]()
    for size, sharpening, pad_around in itertools.product(SIZES, (0.0, 0.5), (True, False)):
        theirs = node.prep_image(picture(size), position, sharpening, pad_around)[0].clamp(0, 1)
        assert torch.equal(for_insightface(picture(size), position, sharpening, pad_around), theirs)
