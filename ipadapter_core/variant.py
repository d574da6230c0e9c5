"""The kinds of adapters of the field, by name; without torch, so that a command's help needs none."""

from enum import Enum


class Variant(str, Enum):
    """Which adapter of the field it is: a projection, and what that reads."""

    BASE = "base"
    PLUS = "plus"
    FULL = "full"
    FACEID = "faceid"
    FACEID_PLUS = "faceid plus"
    FACEID_PLUS_V2 = "faceid plus v2"
    FACEID_PORTRAIT = "faceid portrait"
    FACEID_PORTRAIT_UNNORM = "faceid portrait unnorm"
    FACEID_KOLORS = "faceid kolors"
    INSTANTID = "instantid"
    XLABS = "xlabs"
    INSTANTX = "instantx"
