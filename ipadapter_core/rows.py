"""Which row of a prompt, a mask or a list of weights each picture of a call takes."""

from __future__ import annotations

from .errors import MismatchError

Numbers = tuple[int, ...]


def pick_rows(
    rows: int, pictures: int, frames: Numbers | None, repeat_last: bool, total: int | None = None
) -> Numbers | None:
    """Which row each picture takes; None where one row serves all.

    pictures: of one conditioning in this call. frames: their numbers in the latent batch, where they are known; empty
    where they are known not to be 0, 1, 2 and so on. total: pictures of the latent batch, where it is known.
    repeat_last: of a list that is short the last row repeats, and what is too long is cut. Raises MismatchError where the
    numbers do not fit.
    """
    if rows == 1:
        return None
    wanted = picture_numbers(pictures, frames, total)
    if repeat_last:
        return tuple(min(number, rows - 1) for number in wanted)
    sampled = total or pictures
    if (frames is None and rows != sampled) or max(wanted) >= rows:
        check_rows(rows, max(sampled, max(wanted) + 1))
    return wanted


def picture_numbers(pictures: int, frames: Numbers | None, total: int | None) -> Numbers:
    """The number in the latent batch of each picture of a call. Raises MismatchError where it is not known."""
    if frames and pictures % len(frames) == 0:
        return frames * (pictures // len(frames))
    if frames is None and pictures % (total or pictures) == 0:
        return tuple(number % (total or pictures) for number in range(pictures))
    known = f"a window of {len(frames)}" if frames else f"a batch of {total or pictures}"
    raise MismatchError(
        f"the model is called with {pictures} pictures of {known}, and nothing says which ones they are, so each cannot "
        "be given its own image, mask or weight. Another node cuts the batch in a way of its own: take it out, or use "
        "one image, one mask and one weight for all pictures."
    )


def check_rows(rows: int, pictures: int) -> None:
    """Raise MismatchError unless there is one image for each picture that is sampled, or one for all."""
    if rows not in (1, pictures):
        sampled = "1 picture is" if pictures == 1 else f"{pictures} pictures are"
        raise MismatchError(
            f"the image prompt has {rows} images, one per picture, but {sampled} sampled. "
            f"Set the latent's batch_size to {rows}, or encode the images 'all together'."
        )


def check_masks(masks: int, pictures: int) -> None:
    """Raise MismatchError unless there is one mask for each picture that is sampled, or one for all."""
    if masks not in (1, pictures):
        count, more = ("1 picture", "") if pictures == 1 else (f"{pictures} pictures", f", or {pictures}")
        raise MismatchError(f"{masks} masks came for {count}; connect 1{more}.")
