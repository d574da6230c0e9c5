"""Helper nodes of the older packs: their contract, what they do as formulas, and their errors."""

import random
import time

import folder_paths
import pytest
import torch
from helpers.contract import contract, contracts, differences
from image_prompt.ipadapter_core.errors import CheckpointError, MismatchError, MissingFileError, SettingError
from image_prompt.nodes.compat import embeds, pictures, regions, schedules, settings
from support import tiny

CLASSES = {**pictures.CLASSES, **embeds.CLASSES, **schedules.CLASSES, **regions.CLASSES}
ROWS = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(4))
IMAGES = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 2, 2, 3)


def call(node_id: str, **inputs):
    """The node's whole result, menu defaults filled in."""
    node = CLASSES[node_id]()
    promised = contract(node_id, "v2" if node_id in contracts()["v2"] else "v1")
    defaults = {i.name: i.options["default"] for i in promised.inputs if i.options.get("default") is not None}
    return getattr(node, node.FUNCTION)(**(defaults | inputs))


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setenv(settings.EXACT_LEGACY.variable, "1")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The host's input and output folders."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"get_{name}_directory", lambda path=tmp_path / name: str(path))
    return tmp_path


# --- contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node_id", CLASSES)
def test_inputs_outputs_and_method_are_the_older_packs(node_id):
    generation = "v2" if node_id in contracts()["v2"] else "v1"
    assert differences(CLASSES[node_id], contract(node_id, generation)) == []


@pytest.mark.parametrize("node_id", CLASSES)
def test_old_ids_stay_out_of_the_menus(node_id):
    node = CLASSES[node_id]
    assert node.DEPRECATED
    assert node.CATEGORY == "image prompt/older"
    assert node.TITLE
    assert node.DESCRIPTION


# --- pictures ----------------------------------------------------------------------------------------------------


def test_names_of_2023_still_mean_a_filter():
    picture = tiny.picture(1, 48, 64)
    for old, new in (("lanczos", "LANCZOS"), ("area", "BOX"), ("nearest-exact", "NEAREST")):
        made = [call("PrepImageForClipVision", image=picture, interpolation=name)[0] for name in (old, new)]
        assert torch.equal(*made)
        assert pictures.PrepareNode.VALIDATE_INPUTS(interpolation=old) is True
    assert "LANCZOS" in pictures.PrepareNode.VALIDATE_INPUTS(interpolation="cubic")


def test_noise_leaves_everybody_elses_random_numbers_alone():
    before = torch.get_rng_state(), random.getstate()
    for kind in pictures.KINDS:
        call("IPAdapterNoise", type=kind, strength=0.6, blur=3, image_optional=tiny.picture(1, 40, 60, 2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_pictures_without_a_colour_axis_get_a_sentence():
    for node_id in ("PrepImageForClipVision", "PrepImageForInsightFace"):
        with pytest.raises(MismatchError, match="channels"):
            call(node_id, image=torch.zeros(1, 8, 8))
    with pytest.raises(MismatchError, match="channels"):
        call("IPAdapterNoise", image_optional=torch.zeros(8, 8, 3))


# --- embeds ------------------------------------------------------------------------------------------------------


def test_embeds_combine_by_rows_of_all_that_are_connected():
    made = call("IPAdapterCombineEmbeds", embed1=ROWS[:2], embed3=ROWS[2:], method="average")[0]
    torch.testing.assert_close(made, ROWS.mean(0, keepdim=True))
    assert torch.equal(call("IPAdapterCombineEmbeds", embed1=ROWS, method="concat")[0], ROWS)


@pytest.mark.parametrize("method", embeds.MODES)
def test_one_row_stays_as_it_is(method):
    assert torch.equal(call("IPAdapterCombineEmbeds", embed1=ROWS[:1], method=method)[0], ROWS[:1])


def test_one_row_is_nan_or_signs_in_exact_legacy_results(exact):
    one = {
        method: call("IPAdapterCombineEmbeds", embed1=ROWS[:1], method=method)[0] for method in embeds.MODES
    }
    assert one["subtract"].isnan().all()
    torch.testing.assert_close(one["norm average"], ROWS[:1].sign())


def test_embeds_of_different_encoders_get_a_sentence():
    with pytest.raises(MismatchError, match="same adapter"):
        call("IPAdapterCombineEmbeds", embed1=torch.zeros(1, 17, 64), embed2=torch.zeros(1, 16, 64))
    with pytest.raises(MismatchError, match="same adapter"):
        call("IPAdapterBatchEmbeds", embed1=torch.zeros(2, 1, 64), embed2=torch.zeros(2, 1, 48))


def test_batched_embeds_keep_their_two_sides():
    first, second = torch.rand(2, 1, 8), torch.rand(2, 3, 8)
    made = call("IPAdapterBatchEmbeds", embed1=first, embed2=second)[0]
    assert torch.equal(made, torch.cat((first, second), 1))
    grids = call("IPAdapterBatchEmbeds", embed1=torch.rand(2, 1, 17, 8), embed2=torch.rand(2, 2, 17, 8))[0]
    assert grids.shape == (2, 3, 17, 8)
    later = call("IPAdapterBatchEmbeds", embed1=torch.rand(2, 257, 8), embed2=torch.rand(1, 257, 8))[0]
    assert later.shape == (3, 257, 8)


def test_saving_never_overwrites(folders):
    for n in range(3):
        assert call("IPAdapterSaveEmbeds", embeds=torch.full((1, 4), float(n))) == (None,)
    (folders / "output" / "old_00007_.ipadpt").touch()  # as the first generation numbered
    call("IPAdapterSaveEmbeds", embeds=torch.zeros(1, 4), filename_prefix="old")
    call("IPAdapterSaveEmbeds", embeds=torch.zeros(1, 4), filename_prefix="sub\\deep")
    call("IPAdapterSaveEmbeds", embeds=torch.zeros(1, 4), filename_prefix="%year%")
    names = sorted(p.relative_to(folders / "output").as_posix() for p in folders.rglob("*.ipadpt"))
    numbered = [f"IP_embeds_0000{n}.ipadpt" for n in (1, 2, 3)]
    assert names == [
        time.strftime("%Y_00001.ipadpt"),
        *numbered,
        "old_00007_.ipadpt",
        "old_00008.ipadpt",
        "sub/deep_00001.ipadpt",
    ]


def test_saved_embeds_load_from_every_folder_and_by_every_path(folders, monkeypatch):
    call("IPAdapterSaveEmbeds", embeds=ROWS, filename_prefix="face/a")
    (folders / "input" / "face").mkdir()
    torch.save(ROWS[:1].half(), folders / "input" / "face" / "b.ipadpt")
    assert embeds.LoadEmbedsNode.INPUT_TYPES()["required"]["embeds"][0] == [
        "face/b.ipadpt",
        "output/face/a_00001.ipadpt",
    ]
    for name in ("output/face/a_00001.ipadpt", "face/a_00001.ipadpt", "face\\a_00001.ipadpt"):
        assert torch.equal(call("IPAdapterLoadEmbeds", embeds=name)[0], ROWS)
        assert embeds.LoadEmbedsNode.VALIDATE_INPUTS(embeds=name) is True
    assert torch.equal(call("IPAdapterLoadEmbeds", embeds="face\\b.ipadpt")[0], ROWS[:1].half().float())


def test_missing_or_foreign_embeds_get_a_sentence(folders):
    torch.save({"weights": torch.zeros(3)}, folders / "input" / "dict.ipadpt")
    (folders / "input" / "page.ipadpt").write_text("<html>not found</html>")
    torch.save(torch.nn.Linear(2, 2), folders / "input" / "code.ipadpt")
    with pytest.raises(MissingFileError, match=r"Found: code\.ipadpt, page\.ipadpt, dict\.ipadpt\."):
        call("IPAdapterLoadEmbeds", embeds="gone.ipadpt")
    assert "gone.ipadpt" in embeds.LoadEmbedsNode.VALIDATE_INPUTS(embeds="gone.ipadpt")
    for name in ("dict", "page", "code"):
        with pytest.raises(CheckpointError, match=f"{name}.ipadpt"):
            call("IPAdapterLoadEmbeds", embeds=f"{name}.ipadpt")
    with pytest.raises(SettingError, match="leads out"):
        call("IPAdapterSaveEmbeds", embeds=ROWS, filename_prefix="../x")


# --- weights -----------------------------------------------------------------------------------------------------


def test_frames_have_weights_and_pictures():
    made = call(
        "IPAdapterWeights",
        weights="1, 0",
        frames=3,
        method="shift batches",
        image=IMAGES,
        add_starting_frames=1,
    )
    weights, inverted, count, first, second, strategy = made
    assert weights == [1, *[1, 0.5, 0] * 3]
    assert inverted == [0, *[0, 0.5, 1] * 3]
    assert count == 10
    assert first[:, 0, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert second[:, 0, 0, 0].tolist() == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert strategy["frame_count"] == 4


def test_a_strategy_is_followed_over_other_pictures():
    strategy = call("IPAdapterWeights", weights="1, 0", frames=3, method="shift batches", image=IMAGES)[5]
    again = call("IPAdapterWeightsFromStrategy", weights_strategy=strategy, image=IMAGES[:2])
    assert again[0] == [1, 0.5, 0]
    assert again[5] == strategy
    with pytest.raises(MismatchError, match="weights_strategy"):
        call("IPAdapterWeightsFromStrategy", weights_strategy="linear")


def test_inverted_weights_are_backwards_in_exact_legacy_results(exact):
    made = call("IPAdapterWeights", weights="1, 0", timing="ease_in", frames=4)
    assert made[1] == made[0][::-1]


def test_inverted_weights_mirror_each_weight():
    weights, inverted, *_ = call("IPAdapterWeights", weights="1, 0", timing="ease_in", frames=4)
    torch.testing.assert_close(torch.tensor(inverted), 1 - torch.tensor(weights))


def test_random_weights_come_back_and_touch_no_generator():
    before = random.getstate()
    made = [call("IPAdapterWeights", weights="0, 1", timing="random", frames=n)[0] for n in (5, 5, 6)]
    assert random.getstate() == before
    assert made[0] == made[1]
    assert made[0] != made[2][:5]


def test_random_weights_are_of_the_global_generator_in_exact_legacy_results(exact):
    random.seed(5)
    made = call("IPAdapterWeights", weights="0, 1", timing="random", frames=3)[0]
    random.seed(5)
    assert made == [random.uniform(0, 1) for _ in range(3)]


def test_prompts_are_keyframes():
    strategy = call("IPAdapterWeights", weights="1, 0", frames=3, image=IMAGES[:2])[5]
    made = call(
        "IPAdapterPromptScheduleFromWeightsStrategy", weights_strategy=strategy, prompt='a "cat"\n\nb'
    )
    assert made == ('"0": "a \\"cat\\"",\n"3": "b",\n',)


def test_quotes_are_not_escaped_in_exact_legacy_results(exact):
    strategy = call("IPAdapterWeights", weights="1, 0", frames=3, image=IMAGES[:1])[5]
    made = call("IPAdapterPromptScheduleFromWeightsStrategy", weights_strategy=strategy, prompt='a "cat"')
    assert made == ('"0": "a "cat"",\n',)


def test_weights_join():
    assert call("IPAdapterCombineWeights", weights_1=[0.1, 0.2], weights_2=0.5) == ([0.1, 0.2, 0.5], 3)


# --- regions -----------------------------------------------------------------------------------------------------


def test_texts_act_in_the_mask():
    text, mask = [[torch.zeros(1, 7, 8), {"pooled_output": None}]], torch.ones(4, 4)
    params, positive, negative = call(
        "IPAdapterRegionalConditioning",
        image=IMAGES,
        image_weight=0.7,
        prompt_weight=1.3,
        mask=mask,
        positive=text,
    )
    assert {key: len(values) for key, values in params.items()} == dict.fromkeys(regions.KEYS, 1)
    assert params["weight"] == [0.7]
    options = positive[0][1]
    assert (options["set_area_to_bounds"], options["mask_strength"]) == (False, 1.3)
    assert options["mask"].shape == (1, 4, 4)
    assert negative is None
    assert text[0][1] == {"pooled_output": None}


def test_texts_without_a_mask_stay_as_they_are():
    text = [[torch.zeros(1, 7, 8), {}]]
    assert call("IPAdapterRegionalConditioning", image=IMAGES, prompt_weight=2.0, negative=text)[2] is text


def test_regions_are_collected_and_stay_as_they_were():
    one, two = (call("IPAdapterRegionalConditioning", image=IMAGES, image_weight=w)[0] for w in (0.1, 0.2))
    made = call("IPAdapterCombineParams", params_1=one, params_2=two, params_5=one)[0]
    assert made["weight"] == [0.1, 0.2, 0.1]
    assert made["attn_mask"] == [None] * 3
    assert one["weight"] == [0.1]
    with pytest.raises(MismatchError, match="params_2 lacks image"):
        call("IPAdapterCombineParams", params_1=one, params_2={"weight": [1.0]})
