from __future__ import annotations

from dataclasses import dataclass

import pytest

from ferbench.errors import InputError
from ferbench.registry import Registry


@dataclass(frozen=True)
class Thing:
    name: str


@pytest.fixture
def registry() -> Registry[Thing]:
    rows = map(Thing, ("vgg16", "plain_cnn", "resnet34", "resnet18"))
    return Registry("model", rows, open_prefixes={"timm:": Thing})


def names(rows: list[Thing]) -> list[str]:
    return [row.name for row in rows]


def test_two_rows_of_one_name_raise():
    with pytest.raises(ValueError, match="model 'a' is registered twice"):
        Registry("model", [Thing("a"), Thing("b"), Thing("a")])


def test_add_refuses_a_taken_name_and_returns_the_row(registry):
    row = Thing("alexnet")
    assert registry.add(row) is row
    assert registry["alexnet"] is row
    with pytest.raises(ValueError, match="vgg16"):
        registry.add(Thing("vgg16"))
    assert len(registry) == 5


def test_rows_keep_their_order(registry):
    assert registry.names == ["vgg16", "plain_cnn", "resnet34", "resnet18"]
    assert names(list(registry)) == registry.names
    assert "vgg16" in registry and "timm:x" not in registry and 3 not in registry


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("resnet18", ["resnet18"]),
        ("resnet18, vgg16", ["resnet18", "vgg16"]),
        ("all", ["vgg16", "plain_cnn", "resnet34", "resnet18"]),
        ("resnet*", ["resnet34", "resnet18"]),
        ("*1?", ["vgg16", "resnet18"]),
        ("resnet[13]*", ["resnet34", "resnet18"]),
        ("resnet18,resnet*,resnet18", ["resnet18", "resnet34"]),
        ("plain_cnn,all", ["plain_cnn", "vgg16", "resnet34", "resnet18"]),
        ("vgg16,,", ["vgg16"]),
        (["vgg16", "plain_cnn"], ["vgg16", "plain_cnn"]),
        ("timm:convnext_atto,vgg16,timm:convnext_atto", ["timm:convnext_atto", "vgg16"]),
    ],
)
def test_select(registry, patterns, expected):
    assert names(registry.select(patterns)) == expected


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ("vgg", "unknown model 'vgg' (did you mean vgg16?)"),
        ("resnet", "unknown model 'resnet' (did you mean resnet"),
        ("RESNET18", "unknown model 'RESNET18' (known: vgg16, plain_cnn, resnet34, resnet18, timm:<name>)"),
        ("vgg16,zzz", "unknown model 'zzz' (known: vgg16, plain_cnn, resnet34, resnet18, timm:<name>)"),
        ("alex*", "no model matches 'alex*' (known:"),
        ("", "no model given (known:"),
        (" , ", "no model given (known:"),
        ("timm:", "unknown model 'timm:'"),
        ("tim:resnet18", "unknown model 'tim:resnet18' (did you mean resnet18"),
    ],
)
def test_select_refuses_in_one_line(registry, patterns, message):
    with pytest.raises(InputError) as caught:
        registry.select(patterns)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_open_prefix_builds_a_row_without_listing_it(registry):
    assert registry["timm:anything"] == Thing("timm:anything")
    assert len(registry) == 4
