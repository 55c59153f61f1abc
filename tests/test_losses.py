import math

import pytest
import torch

from cyclegan_lib.losses import FakeImageBuffer, adversarial_loss, cycle_loss, identity_loss


@pytest.mark.parametrize("is_real", [True, False])
def test_adversarial_losses_by_hand(is_real):
    scores = torch.tensor([[0.5, -1.0], [2.0, 0.0]])
    target = 1.0 if is_real else 0.0
    squares = [(s - target) ** 2 for s in scores.flatten().tolist()]
    assert adversarial_loss(scores, is_real).item() == pytest.approx(sum(squares) / 4)
    sign = 1 if is_real else -1
    logs = [math.log(1 + math.exp(-sign * s)) for s in scores.flatten().tolist()]
    assert adversarial_loss(scores, is_real, "vanilla").item() == pytest.approx(sum(logs) / 4, rel=1e-6)


def test_gradient_of_least_squares():
    scores = torch.tensor([0.25, 3.0], requires_grad=True)
    adversarial_loss(scores, True).backward()
    assert scores.grad.tolist() == pytest.approx([0.25 - 1, 3.0 - 1])


def test_unknown_mode():
    with pytest.raises(ValueError, match="hinge"):
        adversarial_loss(torch.zeros(1), True, "hinge")


def test_cycle_and_identity_are_mean_absolute_differences():
    a, b = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    slow = sum(abs(x - y) for x, y in zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)) / a.numel()
    assert cycle_loss(a, b).item() == pytest.approx(slow, rel=1e-5)
    assert identity_loss(a, b).item() == pytest.approx(slow, rel=1e-5)
    assert cycle_loss(a, a) == 0


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_losses_are_in_float32_at_least(given, computed):
    """16 bits are widened before anything is summed: 300² is beyond float16, and 1 + 2⁻¹⁰ beyond bfloat16."""
    scores = torch.tensor([300.0, 1.0], dtype=given)
    for mode in ("lsgan", "vanilla"):
        found = adversarial_loss(scores, False, mode)
        assert found.dtype == computed
        assert found.item() == pytest.approx(adversarial_loss(scores.double(), False, mode).item(), rel=1e-6)
    real = torch.tensor([2**-10, 0], dtype=torch.float64).to(computed)
    for loss in (cycle_loss, identity_loss):
        found = loss(torch.tensor([1.0, 0], dtype=given), real)
        assert found.dtype == computed and found.item() == (1 - 2**-10) / 2


def numbered(*numbers):
    return torch.tensor(numbers, dtype=torch.float32).reshape(-1, 1, 1, 1)


def test_a_buffer_that_is_not_full_returns_what_it_gets():
    buffer = FakeImageBuffer(size=5)
    assert torch.equal(buffer(numbered(1, 2, 3)), numbered(1, 2, 3))
    assert torch.equal(buffer(numbered(4, 5)), numbered(4, 5))
    assert len(buffer.pictures) == 5


def test_a_full_buffer_follows_the_papers_rule():
    """Half of the new pictures come straight back; else a uniformly chosen old one does."""
    size, rounds = 10, 20_000
    buffer = FakeImageBuffer(size, seed=1)
    buffer(numbered(*range(size)))
    slots = dict.fromkeys(range(size), 0)
    straight = 0
    stored = [picture.item() for picture in buffer.pictures]
    for new in range(size, size + rounds):
        out = buffer(numbered(new)).item()
        if out == new:
            straight += 1
            continue
        slots[stored.index(out)] += 1
        stored[stored.index(out)] = new
        assert [picture.item() for picture in buffer.pictures] == stored
    assert abs(straight / rounds - 0.5) < 4 * 0.5 / rounds**0.5
    expected = (rounds - straight) / size
    assert sum((n - expected) ** 2 / expected for n in slots.values()) < 27.9  # χ², 9 degrees, p = 0.001


def test_what_a_buffer_returns_has_no_gradient():
    fake = torch.rand(2, 3, 4, 4, requires_grad=True) * 2
    assert not FakeImageBuffer()(fake).requires_grad


def storages(buffer):
    return [picture.untyped_storage().nbytes() for picture in buffer.pictures]


def test_a_buffer_keeps_copies_of_its_pictures_and_nothing_else():
    """A view would keep its batch in memory, and change with it."""
    one, bytes_ = torch.rand(1, 3, 8, 8), 3 * 8 * 8 * 4
    buffer = FakeImageBuffer(size=8, seed=0)
    for _ in range(10):
        fakes = torch.rand(5, 3, 8, 8)
        buffer(fakes)
        fakes.zero_()
    assert storages(buffer) == [bytes_] * 8
    assert all(picture.any() for picture in buffer.pictures)
    joint = torch.cat([one, one]).split([1, 1])[0]  # as `translate_with_identity` makes it
    buffer = FakeImageBuffer()
    buffer(joint)
    assert storages(buffer) == [bytes_]
    resumed = FakeImageBuffer()
    resumed.load_state_dict(FakeImageBuffer().state_dict() | {"pictures": torch.rand(8, 3, 8, 8)})
    assert storages(resumed) == [bytes_] * 8


def test_size_0_is_no_buffer():
    buffer = FakeImageBuffer(0)
    for n in range(5):
        assert buffer(numbered(n)).item() == n


def test_a_buffer_goes_on_where_it_was():
    one, other = FakeImageBuffer(3, seed=0), FakeImageBuffer(3, seed=9)
    for n in range(20):
        one(numbered(n))
    other.load_state_dict(one.state_dict())
    for n in range(20, 60):
        assert torch.equal(one(numbered(n)), other(numbered(n)))
