from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ferbench.recipe import AugmentRecipe
from ferbench.training.augment import augmented, mixed, pasted, remixed
from ferbench.training.treatment import Remix

OFF = AugmentRecipe.model_validate(dict.fromkeys(AugmentRecipe.model_fields, 0.0))


def on(**knobs: float) -> AugmentRecipe:
    return OFF.model_copy(update=knobs)


ALL = on(flip=0.5, shift=0.1, rotate=12.0, zoom=0.12, brightness=0.1, contrast=0.2, erase=0.5, erase_size=0.15)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int, side: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, side, side, generator=generator(seed))


def change(images: Tensor, recipe: AugmentRecipe, seed: int = 0, size: int = 0) -> Tensor:
    return augmented(images.clone(), size or images.shape[-1], recipe, generator(seed))


@pytest.fixture
def extreme(monkeypatch):
    """Every draw at one end of its range: 0 the lowest, 1 the highest."""

    def fix(end: float) -> None:
        monkeypatch.setattr(torch, "rand", lambda shape, **options: torch.full(shape, end))

    return fix


# each image for itself


@pytest.mark.parametrize(
    ("knobs", "at_least"),
    [
        ({"shift": 0.1}, 64),
        ({"rotate": 10.0}, 64),
        ({"zoom": 0.2}, 64),
        ({"brightness": 0.1}, 64),
        ({"contrast": 0.2}, 64),
        # rectangles may coincide
        ({"erase": 1.0, "erase_size": 0.3}, 50),
        ({"flip": 0.5}, 2),
    ],
)
def test_every_image_has_its_own_parameters(knobs, at_least):
    changed = change(noise(1, 24).expand(64, -1, -1, -1), on(**knobs))
    assert changed.shape == (64, 1, 24, 24)
    assert len(changed.unique(dim=0)) >= at_least


def test_all_randomness_comes_from_the_generator():
    images = noise(8, 24)
    torch.manual_seed(1)
    first = change(images, ALL)
    torch.manual_seed(2)
    assert torch.equal(first, change(images, ALL))
    assert not torch.equal(first, change(images, ALL, seed=1))
    used = generator()
    augmented(images, 24, ALL, used)
    assert not torch.equal(first, augmented(images, 24, ALL, used)), "the next batch is changed otherwise"


def test_images_passed_in_stay_as_they_are():
    images = noise(8, 24)
    before = images.clone()
    augmented(images, 24, ALL, generator())
    assert torch.equal(images, before)


# geometry


def test_nothing_changes_when_all_is_off():
    images = noise(4, 24)
    torch.testing.assert_close(change(images, OFF), images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [12, 17, 24, 36])
def test_resize_is_that_of_the_evaluation(size):
    images = noise(4, 24)
    expected = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    torch.testing.assert_close(change(images, OFF, size=size), expected, rtol=0, atol=1e-5)


def test_flip_is_a_mirror_image():
    images = noise(4, 24)
    torch.testing.assert_close(change(images, on(flip=1.0)), torch.flip(images, [3]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("degrees", "end", "quarters"), [(90, 1, 1), (90, 0, -1), (180, 1, 2), (180, 0, 2)])
def test_rotation_by_quarters(degrees, end, quarters, extreme):
    images = noise(2, 12)
    extreme(end)
    turned = change(images, on(rotate=float(degrees)))
    torch.testing.assert_close(turned, torch.rot90(images, quarters, [2, 3]), rtol=0, atol=1e-4)


def test_shift_is_a_share_of_the_side_and_the_border_is_reflected(extreme):
    images = noise(2, 8)
    extreme(1)
    # a quarter of 8 pixels: pixel i shows i + 2, and past the border 7 7 6 6 ... runs back
    index = torch.tensor([2, 3, 4, 5, 6, 7, 7, 6])
    expected = images[:, :, index][:, :, :, index]
    torch.testing.assert_close(change(images, on(shift=0.25)), expected, rtol=0, atol=1e-5)


def ramp(side: int, axis: int) -> Tensor:
    """An image whose grey level is the coordinate, -1 to 1 between the outer edges."""
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    return (line[None, :] if axis == 0 else line[:, None]).expand(side, side)[None, None]


@pytest.mark.parametrize(("end", "scale"), [(1, 1.5), (0, 1 / 1.5)])
def test_zoom_scales_about_the_centre(end, scale, extreme):
    extreme(end)
    changed = change(ramp(9, 0), on(zoom=0.5))
    # up to where the border's reflection begins
    torch.testing.assert_close(changed[..., 2:7], scale * ramp(9, 0)[..., 2:7], rtol=0, atol=1e-5)


def test_limits_of_shift_rotation_and_zoom():
    """Seen through two ramps, each image shows which map it was given."""
    recipe, n, side = on(shift=0.1, rotate=20.0, zoom=0.25, flip=0.5), 2000, 33
    x, y = (change(ramp(side, axis).expand(n, -1, -1, -1), recipe)[:, 0] for axis in (0, 1))
    centre, step = side // 2, 2 / side
    for shown in (x, y):
        # a shift of a tenth of the side is 0.2 in these coordinates
        assert 0.19 < shown[:, centre, centre].abs().max() <= 0.2 + 1e-5
        assert shown[:, centre, centre].mean().abs() < 0.02
    across = torch.stack(
        [x[:, centre, centre + 1] - x[:, centre, centre], y[:, centre, centre + 1] - y[:, centre, centre]]
    )
    down = torch.stack(
        [x[:, centre + 1, centre] - x[:, centre, centre], y[:, centre + 1, centre] - y[:, centre, centre]]
    )
    scale = down.norm(dim=0) / step
    torch.testing.assert_close(across.norm(dim=0) / step, scale, rtol=1e-3, atol=1e-3)
    assert 1.24 < scale.max() <= 1.25 + 1e-3 and 0.8 - 1e-3 <= scale.min() < 0.81
    angle = torch.rad2deg(torch.atan2(-down[0], down[1]))
    assert 19.5 < angle.max() <= 20.01 and -20.01 <= angle.min() < -19.5
    mirrored = across[0] * down[1] - across[1] * down[0] < 0
    # five standard deviations of a fair coin
    assert abs(mirrored.float().mean() - 0.5) < 5 * 0.5 / math.sqrt(n)


# light


def test_light_stays_on_the_scale():
    images = torch.cat([torch.zeros(50, 1, 8, 8), torch.ones(50, 1, 8, 8), noise(400, 8)])
    changed = change(images, on(brightness=1.0, contrast=1.0))
    assert changed.min() == 0 and changed.max() == 1


def test_brightness_adds_one_number_within_its_limit():
    images = noise(500, 8) * 0.2 + 0.4
    difference = change(images, on(brightness=0.3)) - images
    torch.testing.assert_close(difference.amax((2, 3)), difference.amin((2, 3)), rtol=0, atol=1e-5)
    assert difference.max() <= 0.3 + 1e-5 and difference.min() >= -0.3 - 1e-5
    assert difference.max() > 0.28 and difference.min() < -0.28


def test_contrast_scales_about_the_mean_within_its_limit():
    images = noise(500, 8) * 0.2 + 0.4
    changed = change(images, on(contrast=0.4))
    torch.testing.assert_close(changed.mean((2, 3)), images.mean((2, 3)), rtol=0, atol=1e-5)
    factor = changed.std((2, 3)) / images.std((2, 3))
    assert 0.6 - 1e-4 <= factor.min() < 0.62 and 1.38 < factor.max() <= 1.4 + 1e-4


# erasing


def erased(recipe: AugmentRecipe, n: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """(images, changed images, which pixels differ)."""
    images = noise(n, side)
    changed = change(images, recipe)
    return images, changed, (changed - images).abs() > 1e-4


def test_one_rectangle_of_the_images_mean_is_erased():
    images, changed, gone = erased(on(erase=1.0, erase_size=0.2), 100, 64)
    mean = images.mean((2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(changed[gone], mean[gone], rtol=0, atol=1e-4)
    rows, columns = gone.any(3)[:, 0], gone.any(2)[:, 0]
    full = rows[:, :, None] & columns[:, None, :]
    # the few pixels inside that differ have the mean's grey by chance
    assert (full & ~gone[:, 0]).sum() < 0.002 * full.sum()
    for line in (*rows, *columns):
        (inside,) = line.nonzero(as_tuple=True)
        assert len(inside) == inside[-1] - inside[0] + 1


@pytest.mark.parametrize("largest", [0.01, 0.02, 0.2])
def test_erased_area_is_within_its_limit(largest):
    _, _, gone = erased(on(erase=1.0, erase_size=largest), 150, 160)
    share = gone.float().mean((1, 2, 3))
    # whole pixels: a side may be one pixel longer
    assert 0.85 * largest < share.max() < 1.2 * largest
    assert share.min() > 0.8 * min(largest, 0.02)


def test_erasing_has_its_probability():
    _, _, gone = erased(on(erase=0.25, erase_size=0.2), 1200, 16)
    share = gone.any(3).any(2).float().mean().item()
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 1200)


# mixing: image i has grey level i / 8 and class i


N = 8


def mix(recipe: AugmentRecipe, coin: float = 0.0, seed: int = 0, side: int = 16) -> tuple[Tensor, Tensor]:
    images = (torch.arange(N) / N)[:, None, None, None].expand(N, 1, side, side).clone()
    return mixed(images, torch.eye(N), recipe, generator(seed), coin)


BOTH = on(mixup=0.5, cutmix=0.5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("recipe", [on(mixup=0.4), on(cutmix=1.0), BOTH])
@pytest.mark.parametrize("coin", [0.2, 0.8])
def test_targets_are_distributions_of_what_is_seen(recipe, coin, seed):
    images, targets = mix(recipe, coin, seed)
    assert (targets >= 0).all()
    torch.testing.assert_close(targets.sum(1), torch.ones(N))
    assert (targets > 0).sum(1).max() <= 2
    # the label's shares weigh the grey levels just as the image's pixels do
    torch.testing.assert_close(images.mean((1, 2, 3)), targets @ (torch.arange(N) / N))


def test_mixup_blends_and_cutmix_pastes():
    blended, _ = mix(on(mixup=0.4))
    assert (blended.amax((2, 3)) == blended.amin((2, 3))).all()
    pasted, targets = mix(on(cutmix=1.0))
    for image, target in zip(pasted, targets, strict=True):
        assert set((image.unique() * N).tolist()) == set(target.nonzero()[:, 0].tolist())
    assert (pasted.amax((2, 3)) != pasted.amin((2, 3))).any()


@pytest.mark.parametrize(("coin", "blends"), [(0.0, True), (0.49, True), (0.5, False), (0.99, False)])
def test_the_coin_picks_between_the_two(coin, blends):
    images, _ = mix(BOTH, coin)
    assert bool((images.amax((2, 3)) == images.amin((2, 3))).all()) == blends


@pytest.mark.parametrize("coin", [0.1, 0.9])
def test_one_alone_needs_no_coin(coin):
    for recipe in (on(mixup=0.5), on(cutmix=0.5)):
        assert torch.equal(mix(recipe, coin)[0], mix(recipe, 0.3)[0])


def test_each_image_has_its_own_share():
    _, targets = mix(on(mixup=1.0))
    shares = targets.amax(1)[targets.amax(1) < 1]
    assert len(shares) >= N - 2 and len(shares.unique()) == len(shares)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_are_beta_distributed(alpha):
    n, shares = 1000, []
    for seed in range(10):
        _, targets = mixed(torch.zeros(n, 1, 1, 1), torch.eye(n), on(mixup=alpha), generator(seed), 0.0)
        shares.append(targets.diagonal())
    share = torch.cat(shares)
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)); about one image in n meets itself
    assert share.mean() == pytest.approx(0.5, abs=0.02)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.01)


def test_mixing_is_repeatable_and_off_by_default():
    assert torch.equal(mix(BOTH, seed=3)[0], mix(BOTH, seed=3)[0])
    assert not torch.equal(mix(BOTH, seed=3)[0], mix(BOTH, seed=4)[0])
    images, targets = noise(4, 8), torch.eye(4)
    assert mixed(images, targets, OFF, generator(), 0.0) == (images, targets)


# mixing by class: of 8 images six are of class 0 and two of class 1, with grey levels as above

CLASS_OF = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])


def remix_of(seed: int, kappa: float = 3.0, tau: float = 0.5) -> tuple[Tensor, Tensor]:
    images = (torch.arange(N) / N)[:, None, None, None].expand(N, 1, 4, 4).clone()
    counts = torch.tensor([600.0, 200.0])
    return remixed(images, torch.eye(2)[CLASS_OF], Remix(counts, 1.0, kappa, tau), generator(seed))


def test_remix_gives_a_pair_to_the_rarer_class_while_that_has_its_share():
    given = mixed_fairly = 0
    for seed in range(40):
        # the same draws without any class that is the rarer
        _, fair = remix_of(seed, kappa=1e9)
        images, targets = remix_of(seed)
        assert torch.equal(images, remix_of(seed, kappa=1e9)[0])
        for share, label in zip(fair, targets, strict=True):
            if 0 < share[1] < 1:
                # class 0 is 3 times as large: where its share is below tau the label is class 1 alone
                expected = torch.tensor([0.0, 1.0]) if share[0] < 0.5 else share
                torch.testing.assert_close(label, expected)
                given, mixed_fairly = given + bool(share[0] < 0.5), mixed_fairly + bool(share[0] >= 0.5)
            else:
                torch.testing.assert_close(label, share)
    assert given > 20 and mixed_fairly > 20
    # no class is 4 times as large as the other
    assert torch.equal(remix_of(0, kappa=4.0)[1], remix_of(0, kappa=1e9)[1])


def test_patches_are_pasted_with_their_label():
    images, patches = torch.zeros(N, 1, 16, 16), torch.ones(N, 1, 16, 16)
    targets, others = torch.tensor([[1.0, 0.0]]).expand(N, 2), torch.tensor([[0.0, 1.0]]).expand(N, 2)
    seen, labels = pasted(images, targets, (patches, others), 1.0, generator(3))
    torch.testing.assert_close(labels[:, 1], seen.mean((1, 2, 3)))
    torch.testing.assert_close(labels.sum(1), torch.ones(N))
    assert 0.1 < labels[:, 1].mean() < 0.9
