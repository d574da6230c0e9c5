"""Errors as users see them: the name of the class without a module, and the same after a pickle."""

import pickle
import traceback

import pytest
from image_prompt.ipadapter_core import errors
from image_prompt.ipadapter_core.errors import ImagePromptError

KINDS = [ImagePromptError, *ImagePromptError.__subclasses__()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_traceback_and_a_page_show_the_name_alone(kind):
    assert kind.__module__ == "builtins"  # of which pages leave the module out
    assert traceback.format_exception_only(kind("a sentence.")) == [f"{kind.__name__}: a sentence.\n"]
    assert getattr(errors, kind.__name__) is kind


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_goes_through_a_pickle(kind):
    again = pickle.loads(pickle.dumps(kind("a sentence.")))
    assert (type(again), str(again)) == (kind, "a sentence.")
