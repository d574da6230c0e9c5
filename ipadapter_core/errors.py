"""The one exception family. A message says what came, what is allowed, and what to do."""


class ImagePromptError(ValueError):
    """Anything a user can cause and can mend."""


class CheckpointError(ImagePromptError):
    """The file is not a readable adapter checkpoint."""


class UnknownAdapterError(CheckpointError):
    """The file is readable, but its tensors are of no adapter we know."""


class MismatchError(ImagePromptError):
    """Two parts that were connected do not belong together: encoder, adapter, model, batch or mask."""


class WrongEncoderError(MismatchError):
    """The CLIP vision model is not the one that the adapter was trained with."""


class MissingFileError(ImagePromptError):
    """A file that is needed is not there; the message says which, from where, and into which folder."""


class RecipeError(ImagePromptError):
    """A setting of training or evaluation that cannot work."""
