"""Blocks of Non-local_pytorch against their definition: the convolutions, the pool behind them, W, and BN or none."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from nl_lightning.cli import main
from nl_lightning.errors import UserError
from nl_lightning.weights.blocks import blocks_in, import_block, load_block
from nl_lightning.weights.importing import import_weights
from nl_lightning.weights.wrappers import State

CONVS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
POOLS: dict[int, Any] = {
    1: lambda x: F.max_pool1d(x, 2), 2: lambda x: F.max_pool2d(x, 2), 3: lambda x: F.max_pool3d(x, (1, 2, 2))
}  # fmt: skip


def random_state(mode: str, dimensions: int, pools: bool, bn: bool, channels: int = 6) -> dict[str, Tensor]:
    """The tensors of one block, under its names."""
    torch.manual_seed(0)
    inner, ones = channels // 2, [1] * dimensions
    convs = {"g.0" if pools else "g": (inner, channels), "W.0" if bn else "W": (channels, inner)}
    if mode != "gaussian":
        convs |= {"theta": (inner, channels), "phi.0" if pools else "phi": (inner, channels)}
    state = {f"{name}.weight": torch.randn(*shape, *ones) for name, shape in convs.items()}
    state |= {f"{name}.bias": torch.randn(shape[0]) for name, shape in convs.items()}
    if bn:
        state |= {
            f"W.1.{name}": torch.rand(channels) + 0.5 for name in ("weight", "bias", "running_mean", "running_var")
        }
        state["W.1.num_batches_tracked"] = torch.tensor(3)
    if mode == "concatenation":
        state["concat_project.0.weight"] = torch.randn(1, 2 * inner, 1, 1)
    return state


def expected(state: dict[str, Tensor], x: Tensor, mode: str) -> Tensor:
    """The block as its author writes it."""
    dimensions = x.ndim - 2
    pool = POOLS[dimensions] if "g.0.weight" in state else lambda y: y

    def conv(name: str, y: Tensor) -> Tensor:
        name = name if f"{name}.weight" in state else f"{name}.0"
        mapped: Tensor = CONVS[dimensions](y, state[f"{name}.weight"], state[f"{name}.bias"])
        return mapped

    g = pool(conv("g", x)).flatten(2).mT  # (N, keys, C / 2)
    theta = (x if mode == "gaussian" else conv("theta", x)).flatten(2).mT
    phi = pool(x if mode == "gaussian" else conv("phi", x)).flatten(2)
    if mode == "concatenation":
        queries, keys = theta.shape[1], phi.shape[2]
        pairs = torch.cat(
            [theta.mT[..., None].expand(-1, -1, -1, keys), phi[:, :, None].expand(-1, -1, queries, -1)], 1
        )
        f = F.conv2d(pairs, state["concat_project.0.weight"])[:, 0].relu() / keys
    elif mode == "dot_product":
        f = theta @ phi / phi.shape[2]
    else:
        f = (theta @ phi).softmax(dim=-1)
    y = conv("W", (f @ g).mT.reshape(x.shape[0], -1, *x.shape[2:]))
    if "W.1.weight" in state:
        names = ("running_mean", "running_var", "weight", "bias")
        y = F.batch_norm(y, *(state[f"W.1.{name}"] for name in names))  # type: ignore[arg-type]
    return x + y


@pytest.mark.parametrize("mode", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize(("pools", "bn"), [(True, True), (False, False)])
def test_blocks_compute_the_same(mode: Any, dimensions: int, pools: bool, bn: bool) -> None:
    state = random_state(mode, dimensions, pools, bn)
    x = torch.randn(2, 6, *(4, 6, 5)[:dimensions])
    block, _ = import_block(state, "dot_product" if mode == "dot_product" else "embedded_gaussian")
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected(state, x, mode), rtol=1e-4, atol=1e-5)


def test_what_is_more_or_less_than_a_block_is_refused() -> None:
    state = random_state("embedded_gaussian", 2, True, True)
    with pytest.raises(UserError, match=r"1 tensors are left over: conv_1\.0\.weight"):
        import_block({**state, "conv_1.0.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"not the block of 6 channels that its g is of: missing: phi\.weight"):
        import_block({name: tensor for name, tensor in state.items() if name != "phi.0.weight"})
    narrow = {**state, "g.0.weight": torch.zeros(2, 6, 1, 1), "g.0.bias": torch.zeros(2)}
    with pytest.raises(UserError, match=r"of another shape: g\.bias \[2\] for \[3\], g\.weight"):
        import_block(narrow)
    with pytest.raises(UserError, match="it lacks g"):
        import_block({"theta.weight": torch.zeros(3, 6, 1, 1)})


@pytest.mark.parametrize("mode", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
def test_a_block_becomes_a_file_of_its_own(tmp_path: Path, mode: Any, capsys: pytest.CaptureFixture[str]) -> None:
    state = random_state(mode, 2, True, True)
    torch.save({"state_dict": state}, tmp_path / f"{mode}.pth")
    out = tmp_path / "block.safetensors"
    assert main(["weights", "import", str(tmp_path / f"{mode}.pth"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"alexhex7: 2-D block of 6 channels, {mode}, subsampled, BN after W_z" in said
    assert f"matched: {len(state)} tensors" in said
    x = torch.randn(2, 6, 4, 6)
    with torch.no_grad():
        torch.testing.assert_close(load_block(out)(x), expected(state, x, mode), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bn", [True, False])
def test_blocks_of_non_local_nn_pytorch(bn: bool) -> None:
    """tea1528's spell W_z and w_f otherwise, and never pool."""
    state = random_state("concatenation", 3, False, bn)
    theirs = {"W_f.0.weight": state["concat_project.0.weight"]}
    theirs |= {("W_z" + n[1:] if n[0] == "W" else n): t for n, t in state.items() if "concat" not in n}
    block, settings = import_block(theirs)
    assert (settings.subsample, settings.norm) == (False, "batch" if bn else "none")
    x = torch.randn(2, 6, 2, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected(state, x, "concatenation"), rtol=1e-4, atol=1e-5)


def network(wrapper: str = "module.") -> dict[str, Tensor]:
    """The names of AlexHex7's own weights/net.pth: a network for MNIST with blocks of 32 and 64 channels."""
    torch.manual_seed(0)
    state = {}
    for number, (into, out) in enumerate([(1, 32), (32, 64), (64, 128)], 1):
        state[f"conv_{number}.0.weight"] = torch.randn(out, into, 3, 3)
        state[f"conv_{number}.1.running_mean"] = torch.randn(out)
        if number < 3:
            block = random_state("embedded_gaussian", 2, True, True, out)
            state |= {f"nl_{number}.{name}": tensor for name, tensor in block.items()}
    state["fc.0.weight"] = torch.randn(256, 1152)
    return {wrapper + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("wrapper", ["module.", "", "_orig_mod.net."])
def test_blocks_come_out_of_a_larger_network(wrapper: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(network(wrapper), tmp_path / "net.pth")
    assert main(["weights", "import", str(tmp_path / "net.pth"), "--out", str(tmp_path / "nl.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "left aside: 7 tensors of the network around (" in said
    assert "--variant=dot_product says the other" in said
    prefix = wrapper.replace("module.", "").replace("_orig_mod.", "")
    for name, channels in (("nl_1", 32), ("nl_2", 64)):
        out = tmp_path / f"nl.{prefix}{name}.safetensors"
        assert f"alexhex7: {prefix}{name}: 2-D block of {channels} channels, embedded_gaussian, subsampled" in said
        assert f"written to {out}" in said
        state = {n.removeprefix(f"{wrapper}{name}."): t for n, t in network(wrapper).items() if f"{name}." in n}
        x = torch.randn(1, channels, 4, 6)
        with torch.no_grad():
            torch.testing.assert_close(
                load_block(out)(x), expected(state, x, "embedded_gaussian"), rtol=1e-4, atol=1e-5
            )
    torch.save({n: t for n, t in network().items() if ".nl_" not in n}, tmp_path / "none.pth")
    arguments = ["weights", "import", str(tmp_path / "none.pth"), "--out", str(tmp_path / "no.safetensors")]
    assert main([*arguments, "--from=alexhex7"]) == 2
    assert "no block of Non-local_pytorch is in it" in capsys.readouterr().err


def test_prefixes_of_blocks_never_leave_the_folder(tmp_path: Path) -> None:
    """They come from the file, and become parts of names of files."""
    block = random_state("embedded_gaussian", 2, True, True)
    torch.save({f"../../up\x1b[2J.{name}": tensor for name, tensor in block.items()}, tmp_path / "net.pth")
    import_weights(tmp_path / "net.pth", tmp_path / "nl.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pth", "nl._.._up__2J.safetensors"]
    torch.save({f"{p}.{name}": t for p in ("a b", "a_b") for name, t in block.items()}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="would be written to files of the same name"):
        import_weights(tmp_path / "net.pth", tmp_path / "nl.safetensors")


def test_blocks_are_found_in_one_pass_over_the_tensors() -> None:
    class Tensors(dict[str, torch.Tensor]):
        passes = 0

        def items(self) -> Any:
            self.passes += 1
            return super().items()

    tensors = Tensors({f"nl_{i}.{name}": torch.ones(1) for i in range(9) for name in ("g.weight", "theta.weight")})
    found = blocks_in(State(tensors, {}))
    assert {prefix: [*block] for prefix, block in found.items()} == {
        f"nl_{i}.": ["g.weight", "theta.weight"] for i in range(9)
    }
    assert tensors.passes == 1


def test_half_a_block_within_a_network_is_named(tmp_path: Path) -> None:
    torch.save({n: t for n, t in network().items() if "nl_2.phi" not in n}, tmp_path / "net.pth")
    with pytest.raises(UserError, match=r"net\.pth: nl_2: not the block of 64 .*missing: phi\.bias, phi\.weight"):
        import_weights(tmp_path / "net.pth", tmp_path / "nl.safetensors")
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_file_that_is_no_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing: not a block's weight file"):
        load_block(tmp_path / "missing")
    safetensors.torch.save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(UserError, match="other: not a block's weight file: it holds no block alone"):
        load_block(tmp_path / "other")
    safetensors.torch.save_file({"x": torch.ones(1) / 0}, tmp_path / "other")
    with pytest.raises(UserError, match="other: not a block's .* not a number, or infinite, in 1 tensors: x"):
        load_block(tmp_path / "other")
    torch.save({"g.weight": torch.full((3, 6, 1, 1), torch.nan)}, tmp_path / "nan.pth")
    assert main(["weights", "import", str(tmp_path / "nan.pth"), "--out", str(tmp_path / "w.safetensors")]) == 2
    assert not (tmp_path / "w.safetensors").exists()
