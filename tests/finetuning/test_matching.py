"""Channels and classes are matched by name; what cannot be meant is refused."""

from __future__ import annotations

import pytest

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.finetuning.matching import match
from factorizer_nnunet.nnunet.heads import Heads

OLD = Heads(("T1", "T1ce", "T2", "FLAIR"), ("background", "whole tumor", "core"), regions=False)


def sources(new: Heads, *maps: str, old: Heads = OLD) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    matched = match(old, new, maps)
    return matched.channels.sources, matched.outputs.sources


def test_names_are_matched_whatever_their_spelling() -> None:
    new = Heads(("flair", "t2", "T1-CE"), ("background", "CORE", "Whole_Tumor"), regions=False)
    assert sources(new) == ((3, 2, 1), (0, 2, 1))


def test_other_names_are_new_and_can_be_mapped() -> None:
    new = Heads(("T1c", "PD"), ("background", "WT"), regions=False)
    assert sources(new) == ((None, None), (0, None))
    assert sources(new, "T1ce=T1c", "whole tumor = WT") == ((1, None), (0, 1))


def test_a_mapped_name_is_not_matched_once_more() -> None:
    assert sources(Heads(("T1", "native"), (), False), "T1=native")[0] == (None, 0)


def test_a_spelling_that_two_names_share_decides_nothing() -> None:
    old = Heads(("T1", "t-1"), ("background",), False)
    assert sources(Heads(("T_1",), ("background",), False), old=old)[0] == (None,)
    assert sources(Heads(("t-1",), ("background",), False), old=old)[0] == (1,)
    assert sources(Heads(("T_1", "T-1"), ("background",), False))[0] == (None, None)


def test_channels_of_one_name_are_matched_in_their_order() -> None:
    old = Heads(("zscore", "zscore", "FLAIR"), ("background",), False)
    for new, expected in (
        (("zscore", "zscore", "FLAIR"), (0, 1, 2)),
        (("FLAIR", "Z-score", "Z-score"), (2, 0, 1)),
        (("zscore",), (0,)),
        (("zscore",) * 3, (0, 1, None)),
    ):
        assert sources(Heads(new, ("background",), False), old=old)[0] == expected
    assert sources(Heads(("CT", "CT"), ("background",), False), "zscore=CT", old=old)[0] == (0, 1)


def test_names_may_contain_an_equals_sign() -> None:
    old = Heads(("b=0", "b=1000"), ("background",), False)
    assert sources(Heads(("b=800",), ("background",), False), "b=1000=b=800", old=old)[0] == (1,)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (["T3=PD"], "--map T3=PD does not name a channel or class of the model.*T1, T1ce, T2, FLAIR"),
        (["T1=XY"], "--map T1=XY does not name.*the data set has channels PD and classes background, edema"),
        (["T1"], "--map T1 has no =: write OLD=NEW"),
        (["T1=PD", "T2=PD"], "--map gives T1 and T2 of the model to PD: only one of them"),
        (["T1=edema"], "does not name a channel or class"),
        (["background=edema"], "--map background=edema: another class cannot start from the background"),
        (["core=background"], "--map core=background: another class cannot start from the background"),
    ],
)
def test_wrong_maps_are_reported(maps: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        match(OLD, Heads(("PD",), ("background", "edema"), False), maps)


def test_rows_say_where_each_comes_from() -> None:
    matched = match(OLD, Heads(("T2", "PD"), ("background", "edema"), False))
    assert list(matched.channels.rows()) == [("T2", "T2"), ("PD", "new, from the mean of T1, T1ce, T2, FLAIR")]
    assert list(matched.outputs.rows())[1] == ("edema", "new, from the mean of whole tumor, core")
    assert matched.channels.unused == ["T1", "T1ce", "FLAIR"]
