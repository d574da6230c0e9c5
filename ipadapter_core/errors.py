"""The one exception family. The class says what kind it is; the message what came, what is allowed, and what to do."""

from collections.abc import Generator
from contextlib import contextmanager


class ImagePromptError(ValueError):
    """Anything a user can cause and can mend.

    Pages and terminals show the module of an error's class in front of its name, and a user's column is narrow: these say
    the name alone, as errors of Python's own do.
    """

    part = ""  # of a graph, that the message begins with

    def name_part(self, part: str) -> None:
        """Begin with the part of a graph that this is about, unless that is said already or not known."""
        if part and not self.part:
            self.part = part
            self.args = (f"{part}: {self}",)

    def __init_subclass__(cls) -> None:
        cls.__module__ = ImagePromptError.__module__

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (type(self).__name__, self.args)


@contextmanager
def about(part: str) -> Generator[None]:
    """Errors of ours from here name this part of a graph, where they name none."""
    try:
        yield
    except ImagePromptError as error:
        error.name_part(part)
        raise


def _again(name: str, values: tuple[object, ...]) -> ImagePromptError:
    """From a pickle, which cannot find a class by a module that it is not in."""
    return globals()[name](*values)


ImagePromptError.__module__ = "builtins"


class CheckpointError(ImagePromptError):
    """The file is not a readable adapter checkpoint."""


class UnknownAdapterError(CheckpointError):
    """The file is readable, but its tensors are of no adapter we know."""


class MismatchError(ImagePromptError):
    """Two parts that were connected do not fit: encoder, adapter, model, batch or mask."""


class WrongEncoderError(MismatchError):
    """The CLIP vision model is not the one that the adapter was trained with."""


class MissingFileError(ImagePromptError):
    """A file that is needed is not there; the message says which, from where, and into which folder."""


class MissingPackageError(ImagePromptError):
    """A Python package that only some users need is not there; the message has the line that installs it."""


class SettingError(ImagePromptError):
    """A value that cannot work, whoever gave it: a widget, a flag, a config file, a list."""


class RemoteError(ImagePromptError):
    """A server gave no answer, or none that can be used; the message gives its address and what to do."""


class WriteError(ImagePromptError):
    """A file or folder could not be written; the message says where, why, and what to do."""


def shown(name: object, longest: int = 200) -> str:
    """A name, or any text that came from outside, as one short line that every log and terminal can write.

    Line ends, control characters and what is no text are escaped; of more than `longest` characters the middle goes.
    """
    text = str(name)
    if not text.isprintable():
        text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}...{text[-half:]}"
