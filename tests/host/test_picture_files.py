"""Picture files of every depth and mode, as Pillow and other tools write them: true values, or left out by name."""

import io
import struct
from typing import Literal

import numpy as np
import pytest
import torch
from image_prompt.ipadapter_core.errors import ImagePromptError
from image_prompt.ipadapter_core.pictures.reading import read_image, read_size, read_values
from image_prompt.training.pictures import find_pictures
from PIL import Image

RAMP = np.linspace(0, 255, 48 * 64).reshape(48, 64)  # its mean is half of white
EIGHT = RAMP.astype(np.uint8)


def saved(array: np.ndarray | Image.Image, kind: str, **more) -> bytes:
    file = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(file, kind, **more)
    return file.getvalue()


def tiff(
    values: np.ndarray, sample_format: int, photometric: int = 1, order: Literal["<", ">"] = "<"
) -> bytes:
    """A grey TIFF as scientific tools write it: one strip, any sample format."""
    height, width = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = [(256, width), (257, height), (258, values.dtype.itemsize * 8), (259, 1), (262, photometric)]
    tags += [(273, 8), (277, 1), (278, height), (279, len(data)), (339, sample_format)]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    shorts = {"<": lambda v: struct.pack("<I", v), ">": lambda v: struct.pack(">HH", v, 0)}[order]
    rows = [
        struct.pack(order + "HHI", tag, 4 if tag in (273, 279) else 3, 1)
        + (struct.pack(order + "I", value) if tag in (273, 279) else shorts(value))
        for tag, value in tags
    ]
    return head + data + struct.pack(order + "H", len(rows)) + b"".join(rows) + bytes(4)


def packed_12_bit(values: np.ndarray) -> bytes:
    """A 12-bit TIFF, two values in three bytes."""
    a, b = values.reshape(-1, 2).T.astype(np.uint16)
    data = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8)
    made = tiff(data, 1)  # as so many bytes, then told to be 12 bits
    wide = struct.pack("<HHI", 256, 3, 1) + struct.pack("<I", 3)
    tall = struct.pack("<HHI", 257, 3, 1) + struct.pack("<I", len(data))
    bits = struct.pack("<HHI", 258, 3, 1) + struct.pack("<I", 8)
    strip = struct.pack("<HHI", 278, 3, 1) + struct.pack("<I", len(data))
    made = made.replace(wide, wide[:8] + struct.pack("<I", values.shape[1]))
    made = made.replace(tall, tall[:8] + struct.pack("<I", values.shape[0]))
    made = made.replace(strip, strip[:8] + struct.pack("<I", values.shape[0]))
    return made.replace(bits, bits[:8] + struct.pack("<I", 12))


SIXTEEN = (RAMP * 257).astype(np.uint16)
DEEP = {
    "16-bit grey PNG": lambda: saved(SIXTEEN, "PNG"),
    "16-bit grey TIFF": lambda: saved(SIXTEEN, "TIFF"),
    "16-bit grey TIFF, packed": lambda: saved(SIXTEEN, "TIFF", compression="tiff_lzw"),
    "16-bit grey TIFF, Motorola": lambda: tiff(SIXTEEN, 1, order=">"),
    "16-bit grey TIFF, white is zero": lambda: tiff(65535 - SIXTEEN, 1, photometric=0),
    "16-bit grey PGM": lambda: b"P5\n64 48\n65535\n" + SIXTEEN.astype(">u2").tobytes(),
    "10-bit grey PGM": lambda: b"P5\n64 48\n1023\n" + (RAMP / 255 * 1023).astype(">u2").tobytes(),
    "16-bit grey JPEG 2000": lambda: saved(SIXTEEN, "JPEG2000"),
    "12-bit grey TIFF": lambda: packed_12_bit((RAMP / 255 * 4095).astype(np.uint16)),
    "32-bit TIFF of 16-bit values": lambda: saved((RAMP * 257).astype(np.int32), "TIFF"),
    "32-bit TIFF of 8-bit values": lambda: saved(RAMP.astype(np.int32), "TIFF"),
    "signed 32-bit TIFF": lambda: tiff((RAMP / 255 * (2**31 - 1)).astype(np.int32), 2),
    "unsigned 32-bit TIFF": lambda: tiff((RAMP / 255 * (2**32 - 1)).astype(np.uint32), 1),
    "float TIFF": lambda: saved((RAMP / 255).astype(np.float32), "TIFF"),
    "float TIFF, Motorola": lambda: tiff((RAMP / 255).astype(np.float32), 3, order=">"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_more_than_8_bits_come_as_their_true_values(kind):
    content = DEEP[kind]()
    values = read_values(content)
    assert values.shape == (48, 64, 3)
    assert values.dtype == np.float32
    assert np.abs(values - (RAMP / 255)[..., None]).max() < 1 / 255
    assert np.abs(np.asarray(read_image(content)).astype(int) - EIGHT[..., None]).max() <= 1
    assert read_size(content) == (48, 64)


def test_16_bits_lose_nothing():
    assert np.unique(read_values(saved(SIXTEEN, "PNG"))).size == np.unique(SIXTEEN).size


def png_of_16_bits(channels: int) -> bytes:
    """Pillow reads 16-bit colours and writes none."""
    import cv2

    flags = {
        3: SIXTEEN[..., None].repeat(3, -1),
        4: np.dstack([*[SIXTEEN] * 3, np.full_like(SIXTEEN, 65535)]),
    }
    return cv2.imencode(".png", flags[channels])[1].tobytes()


@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colours_are_read_with_the_8_bits_that_pillow_keeps(channels):
    values = read_values(png_of_16_bits(channels))
    assert np.abs(values - (RAMP / 255)[..., None]).max() < 1.5 / 255
    assert abs(values.mean() - 0.498) < 0.005


UNKNOWN = {
    "floats above white": lambda: saved((RAMP / 100).astype(np.float32), "TIFF"),
    "floats from 0 to 255": lambda: saved(RAMP.astype(np.float32), "TIFF"),
    "negative floats": lambda: saved((RAMP / 255 - 0.5).astype(np.float32), "TIFF"),
    "floats with a hole": lambda: saved(np.where(RAMP < 9, np.nan, RAMP / 255).astype(np.float32), "TIFF"),
    "endless floats": lambda: saved(np.where(RAMP < 9, np.inf, RAMP / 255).astype(np.float32), "TIFF"),
    "32 bits of an unknown scale": lambda: saved((RAMP * 900).astype(np.int32), "TIFF"),
    "negative 32 bits": lambda: saved((RAMP * 257 - 9000).astype(np.int32), "TIFF"),
    "signed 16 bits": lambda: tiff((RAMP * 128).astype(np.int16), 2),
    "no colours to show": lambda: saved(Image.fromarray(EIGHT).convert("RGB").convert("LAB"), "TIFF"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_values_of_an_unknown_scale_are_left_out_by_name_before_training_starts(kind, tmp_path, caplog):
    (tmp_path / "odd.tif").write_bytes(UNKNOWN[kind]())
    (tmp_path / "good.png").write_bytes(saved(EIGHT, "PNG"))
    with pytest.raises(ImagePromptError, match=r"white is not known|Save it in RGB"):
        read_values(tmp_path / "odd.tif")
    found = find_pictures(tmp_path)
    assert found.summary == "1 pictures; 1 without a caption; 1 broken and left out: odd.tif"
    assert "odd.tif is left out (it" in caplog.text


def colours() -> Image.Image:
    noise = torch.randint(256, (48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Image.fromarray(noise.numpy())


MODES = [
    ("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("PA", "TIFF"), ("RGB", "PNG"), ("RGBA", "PNG"),
    ("RGBA", "WEBP"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("YCbCr", "TIFF"), ("RGBX", "TIFF"),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "kind"), MODES)
def test_every_mode_of_8_bits_is_what_pillow_makes_of_it(mode, kind):
    image = colours().convert("LA").convert("PA") if mode == "PA" else colours().convert(mode)
    content = saved(image, kind)
    wanted = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert np.array_equal(read_values(content), wanted.astype(np.float32) / 255)
    assert np.array_equal(np.asarray(read_image(content)), wanted)


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_colours(mode):
    straight = colours().convert({"La": "LA", "RGBa": "RGBA"}[mode])
    assert np.array_equal(np.asarray(read_image(straight.convert(mode))), np.asarray(straight.convert("RGB")))


def test_a_transparent_palette_keeps_its_colours():
    image = colours().quantize(16)
    content = saved(image, "PNG", transparency=bytes([0, 128] + [255] * 14))
    assert np.array_equal(np.asarray(read_image(content)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_that_lie_on_their_side_stand_up(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    content = saved(colours(), kind, exif=exif, **lossless)
    array = np.asarray(colours())
    turned = {
        1: array, 2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1], 5: array.transpose(1, 0, 2),
        6: np.rot90(array, -1), 7: np.rot90(array.transpose(1, 0, 2), 2), 8: np.rot90(array),
    }[orientation]  # fmt: skip
    values = read_values(content)
    assert values.shape == turned.shape
    assert read_size(content) == turned.shape[:2]
    if kind != "JPEG":
        assert np.array_equal(np.asarray(read_image(content)), turned)


@pytest.mark.parametrize("orientation", [6, 8])
def test_deep_pictures_stand_up_too(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(SIXTEEN, "PNG", exif=exif)
    wanted = np.rot90(RAMP / 255, {6: -1, 8: 1}[orientation])
    assert np.abs(read_values(content)[..., 0] - wanted).max() < 1 / 255
    assert read_size(content) == wanted.shape


def test_evaluation_reads_them_the_same():
    from image_prompt.evaluation.clip import Clip

    seen = []

    class Processor:
        @staticmethod
        def image_processor(images, return_tensors):
            seen.extend(images)
            raise StopIteration

    clip = object.__new__(Clip)
    clip.name, clip.processor = "small", Processor
    with pytest.raises(StopIteration):
        clip._values_of(Image.open(io.BytesIO(saved(SIXTEEN, "PNG"))))
    assert abs(np.asarray(seen[0]).mean() / 255 - 0.498) < 0.005
