"""One network in this process: its formulas, written again in the plainest way, and the training of a few examples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainyard.trainer.trm.baselines import trained, with_shuffled_labels, without_recursion
from trainyard.trainer.trm.fit import Fit, Recipe, attention_mask, depth_at
from trainyard.trainer.trm.folder import flat_split
from trainyard.trainer.trm.kernels import gated_block, residual_norm
from trainyard.trainer.trm.losses import choose_loss, judge, token_losses
from trainyard.trainer.trm.measure import measure
from trainyard.trainer.trm.model import Network
from trainyard.trainer.trm.optim import Average, scheduled, sign_step
from trainyard.trainer.trm.shape import Shape
from trainyard.trainer.trm.stream import Stream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SMALL = Shape(
    vocab_size=7, sequence_length=5, hidden_size=16, num_heads=2, h_cycles=2, l_cycles=2, registers=2, max_iterations=4
)


def network(shape: Shape = SMALL, *, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    made = Network(shape).double()
    made.dtype = torch.float64
    return made


def plain_norm(x: Tensor, dim: int) -> Tensor:
    return x / (x.pow(2).mean(dim, keepdim=True) + 1e-5).sqrt()


def plain_swiglu(x: Tensor, into: Tensor, out: Tensor) -> Tensor:
    a, b = (x @ into.T).split(into.shape[0] // 2, -1)
    return (a * torch.sigmoid(a) * b) @ out.T


def plain_attention(x: Tensor, qkv: Tensor, out: Tensor, heads: int) -> Tensor:
    """[examples, positions, features], one example and one head after the other."""
    _count, length, d = x.shape
    size = d // heads
    rows = []
    for example in x:
        q, k, v = (example @ qkv.T).split(d, -1)
        parts = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            turned = []
            for t in (q[:, own], k[:, own]):
                result = t.clone()
                for p in range(length):
                    for i in range(size // 2):
                        angle = torch.tensor(p * 10000.0 ** (-2 * i / size))
                        c, s = angle.cos(), angle.sin()
                        result[p, i] = t[p, i] * c - t[p, i + size // 2] * s
                        result[p, i + size // 2] = t[p, i + size // 2] * c + t[p, i] * s
                turned.append(result)
            weights = torch.softmax(turned[0] @ turned[1].T / math.sqrt(size), -1)
            parts.append(weights @ v[:, own])
        rows.append(torch.cat(parts, -1) @ out.T)
    return torch.stack(rows)


def plain_step(net: Network, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [examples, sequence, vocabulary] and halting logits after one step from the start."""
    shape, d = net.shape, net.shape.hidden_size
    registers = torch.zeros(len(tokens), shape.registers, d, dtype=torch.float64)
    registers[:, 0] = net.puzzle_embedding[0]
    x = math.sqrt(d) * torch.cat((registers, net.token_embedding[tokens]), 1)
    h = net.start_h.expand(x.shape)
    z = net.start_z.expand(x.shape)

    def f(state: Tensor, given: Tensor) -> Tensor:
        state = state + given
        for layer in net.layers:
            if shape.mixer == "Attention":
                state = plain_norm(state + plain_attention(state, layer.qkv, layer.out, shape.num_heads), -1)
            else:
                turned = state.transpose(1, 2)
                state = plain_norm(turned + plain_swiglu(turned, layer.mix_in, layer.mix_out), -1).transpose(1, 2)
            state = plain_norm(state + plain_swiglu(state, layer.mlp_in, layer.mlp_out), -1)
        return state

    for cycle in range(shape.h_cycles):
        with torch.set_grad_enabled(cycle == shape.h_cycles - 1):
            for _ in range(shape.l_cycles):
                z = f(z, h + x)
            h = f(h, z)
    return h[:, shape.registers :] @ net.head.T, h[:, 0] @ net.halting_weight.T + net.halting_bias


@pytest.mark.parametrize("mixer", ["Attention", "MLP"])
def test_a_step_computes_the_published_formulas(mixer: Any) -> None:
    net = network(Shape(**{**SMALL.__dict__, "mixer": mixer}))
    with torch.no_grad():
        net.puzzle_embedding.normal_()
        net.halting_weight.normal_()
    tokens = torch.randint(0, 7, (3, 5), generator=torch.Generator().manual_seed(1))
    labels = torch.randint(0, 7, (3, 5), generator=torch.Generator().manual_seed(2))
    labels[0, 2:] = -100
    rows = net.puzzle_embedding[torch.zeros(3, dtype=torch.long)]
    _, logits, halting = net.step(net.start(3), net.embed(tokens, rows))
    wanted_logits, wanted_halting = plain_step(net, tokens)
    # Rotations are stored in 32 bits.
    torch.testing.assert_close(logits.transpose(0, 1), wanted_logits, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(halting, wanted_halting, rtol=1e-5, atol=1e-6)

    judged = judge(logits, halting, labels, loss="StableMax")
    judged.loss.backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    s = torch.where(wanted_logits >= 0, wanted_logits + 1, 1 / (1 - wanted_logits))
    share = (s / s.sum(-1, keepdim=True)).log()
    loss = wanted_logits.new_zeros(())
    for example in range(3):
        asked = [p for p in range(5) if labels[example, p] >= 0]
        loss = loss - sum(share[example, p, labels[example, p]] for p in asked) / len(asked)
        right = all(int(wanted_logits[example, p].argmax()) == int(labels[example, p]) for p in asked)
        belief = torch.sigmoid(wanted_halting[example, 0])
        loss = loss - 0.5 * (belief.log() if right else (1 - belief).log())
    torch.testing.assert_close(judged.loss, loss, rtol=1e-6, atol=1e-8)
    loss.backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("dim", [0, -1])
def test_the_derivatives_written_out_are_right(dim: int) -> None:
    a, b = (torch.randn(4, 3, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: residual_norm(x, y, dim=dim, epsilon=1e-5), (a, b))
    with torch.no_grad():
        torch.testing.assert_close(residual_norm(a, b, dim=dim, epsilon=1e-5), plain_norm(a + b, dim))
    x, into, out = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((6, 6), (10, 6), (6, 5)))
    given = torch.randn(6, 6, dtype=torch.float64)
    turned = x.t() if dim == 0 else x
    wanted = plain_norm(turned + plain_swiglu(turned, into, out), -1)
    wanted = wanted.t() if dim == 0 else wanted
    found = gated_block(x, into, out, dim=dim, epsilon=1e-5)
    torch.testing.assert_close(found, wanted)
    for ours, plain in zip(
        torch.autograd.grad(found, (x, into, out), given),
        torch.autograd.grad(wanted, (x, into, out), given),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain)
    with torch.no_grad():
        torch.testing.assert_close(gated_block(x, into, out, dim=dim, epsilon=1e-5), wanted)
    half = gated_block(x.float().bfloat16(), into.bfloat16(), out.bfloat16(), dim=dim, epsilon=1e-5)
    torch.testing.assert_close(half.double(), wanted, rtol=0.1, atol=0.1)


def test_padding_is_not_seen() -> None:
    net = network()
    tokens = torch.tensor([[1, 2, 3, 0, 0]])
    rows = net.puzzle_embedding[:1]
    mask = attention_mask(tokens, SMALL, padding=0)
    whole = net.step(net.start(1), net.embed(tokens, rows), mask=mask)[1]
    other = tokens.clone()
    other[0, 3:] = 5
    again = net.step(net.start(1), net.embed(other, rows), mask=mask)[1]
    torch.testing.assert_close(whole[:3], again[:3])
    without = net.step(net.start(1), net.embed(other, rows))[1]
    assert not torch.allclose(whole[:3], without[:3])


@pytest.mark.parametrize("vocabulary", [11, 3000])
def test_stablemax_in_the_precision_that_suits_the_vocabulary(vocabulary: int) -> None:
    logits = torch.randn(2, 3, vocabulary) * 5
    losses = token_losses(logits, torch.zeros(2, 3, dtype=torch.long), loss="StableMax")
    assert losses.dtype == (torch.float64 if vocabulary == 11 else torch.float32)
    wide = logits.double()
    s = torch.where(wide >= 0, wide + 1, 1 / (1 - wide))
    torch.testing.assert_close(losses.double(), -(s[..., 0] / s.sum(-1)).log(), rtol=1e-5, atol=1e-5)
    soft = token_losses(logits, torch.zeros(2, 3, dtype=torch.long), loss="SoftMax")
    torch.testing.assert_close(soft, -torch.log_softmax(logits, -1)[..., 0])


def test_softmax_where_symbols_are_many() -> None:
    assert [choose_loss("Auto", size) for size in (11, 64, 65)] == ["StableMax", "StableMax", "SoftMax"]
    assert choose_loss("StableMax", 3000) == "StableMax"


def test_the_sign_optimizer_touches_the_used_rows_only() -> None:
    table = torch.ones(4, 2)
    sign_step(
        table,
        torch.tensor([1, 3, 1]),
        torch.tensor([[1.0, -2.0], [0.0, 5.0], [2.0, 1.0]]),
        learning_rate=0.1,
        weight_decay=0.5,
    )
    assert table.tolist() == [[1, 1], pytest.approx([0.85, 1.05]), [1, 1], pytest.approx([0.95, 0.85])]


def test_the_course_of_the_learning_rate() -> None:
    course = [scheduled(s, total=10, warmup=4, kind="constant_with_warmup") for s in range(6)]
    assert course == [0.25, 0.5, 0.75, 1, 1, 1]
    assert scheduled(5, total=10, warmup=0, kind="linear") == 0.5
    assert scheduled(0, total=10, warmup=4, kind="constant") == 1
    assert scheduled(10, total=10, warmup=0.2, kind="cosine") == pytest.approx(0)


def test_the_average_lags_behind() -> None:
    net = network()
    average = Average(net, decay=0.9)
    with torch.no_grad():
        net.head.fill_(1.0)
    before = average.values["head"].clone()
    average.update(10_000)
    torch.testing.assert_close(average.values["head"], 0.9 * before + 0.1)


def test_the_curriculum_ends_at_full_depth() -> None:
    recipe = Recipe(steps=100, batch=1, depth_curriculum=True)
    shape = Shape(vocab_size=2, sequence_length=1, h_cycles=3, l_cycles=6)
    depths = [(d.h_cycles, d.l_cycles) for s in (0, 30, 60, 99) for d in [depth_at(s, recipe, shape)]]
    assert depths == [(1, 2), (2, 4), (3, 6), (3, 6)]


def small_fit(**recipe: Any) -> Fit:
    ids = np.random.default_rng(0).integers(0, 7, size=(9, 5))
    torch.manual_seed(0)
    return Fit(
        Network(SMALL),
        Stream(flat_split(ids, ids, vocab_size=7, ignored=None), seed=0, augment=None),
        Recipe(**{"steps": 12, "batch": 6, "learning_rate": 1e-2, **recipe}),
        torch.device("cpu"),
    )


def test_slots_halt_at_the_limit_and_get_new_examples() -> None:
    fit = small_fit(exploration=0.0)
    drawn = []
    for report in fit.run():
        drawn.append(fit.stream.drawn)
        assert report.halted == (6 if report.step % 4 == 0 else 0) or report.exact is not None
    assert drawn[:5] == [6, 6, 6, 6, 12]


def test_the_number_of_slots_together_changes_no_result() -> None:
    """Up to rounding: sums are made in another order."""
    results = []
    for chunk in (6, 2):
        fit = small_fit(chunk=chunk, steps=5)
        results.append([r.loss for r in fit.run()])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-4)


def test_a_data_set_smaller_than_its_batch_is_learned() -> None:
    reports = list(small_fit(batch=32, steps=120).run())
    assert len(reports) == 120
    assert reports[-1].loss < 0.7 * reports[0].loss


@pytest.mark.load
def test_the_controls_are_trainings_of_their_own() -> None:
    """The task is to copy: no recursion is needed for that, and wrong answers teach nothing."""
    ids = np.random.default_rng(3).integers(0, 7, size=(320, 5))
    train, held_out = (flat_split(part, part, vocab_size=7, ignored=None) for part in (ids[:256], ids[256:]))

    def fit() -> Fit:
        torch.manual_seed(0)
        recipe = Recipe(steps=150, batch=32, learning_rate=1e-2, average=0.9)
        return Fit(Network(SMALL), Stream(train, seed=0, augment=None), recipe, torch.device("cpu"))

    def exact(network: Network) -> float:
        return measure(network, held_out, device=torch.device("cpu"), batch=64).exact

    shallow = without_recursion(fit())
    assert (shallow.network.shape.h_cycles, shallow.network.shape.l_cycles) == (1, 1)
    assert exact(trained(shallow)) > 0.9
    assert exact(trained(with_shuffled_labels(fit(), train))) < 0.1
