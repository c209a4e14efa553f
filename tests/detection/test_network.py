"""The detectors against torchvision's own, and what blocks cost at full size."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import keypointrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
from torchvision.models.resnet import Bottleneck, ResNet, resnet101

from nl_lightning.detection.network import Size, _narrow, detector_network, load_start
from nl_lightning.errors import UserError
from nl_lightning.models.conventions import ControlConfig

SMALL = Size(width=0.125, channels=16, hidden=32, head=8, anchors=(8, 16, 32, 64, 128))
FEW = {"min_size": 64, "max_size": 64, "box_batch_size_per_image": 8, "rpn_post_nms_top_n_train": 20}
FEW |= {"rpn_post_nms_top_n_test": 20, "box_detections_per_img": 5}


def target(objects: int = 2, keypoints: int = 0) -> dict[str, Tensor]:
    boxes = torch.tensor([[4.0, 6.0, 30.0, 40.0], [20.0, 10.0, 60.0, 50.0]])[:objects]
    masks = torch.zeros(objects, 64, 64, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    points = torch.tensor([[10.0, 12.0, 2.0]] * keypoints).repeat(objects, 1, 1).reshape(objects, keypoints, 3)
    found = {"boxes": boxes, "labels": torch.tensor([1, 2])[:objects]}
    return {**found, **({"keypoints": points} if keypoints else {"masks": masks})}


def losses(net: nn.Module, objects: int = 2, keypoints: int = 0) -> dict[str, Tensor]:
    """Of one image, with the same draws of proposals every time."""
    torch.manual_seed(5)
    image = torch.rand(3, 64, 64)
    found: dict[str, Tensor] = net.train()([image], [target(objects, keypoints)])
    return found


def small(seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    return detector_network(size=SMALL, frozen_bn=False, trainable_layers=5, num_classes=3, settings=FEW, **options)


def test_without_blocks_losses_and_gradients_are_torchvisions() -> None:
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, **FEW)
    ours = detector_network(50, 3, frozen_bn=False, trainable_layers=5, settings=FEW)
    theirs.load_state_dict(ours.state_dict())  # the same names and shapes
    found = []
    for net in (ours, theirs):
        each = losses(net)
        torch.stack(list(each.values())).sum().backward()
        found.append((each, {name: p.grad for name, p in net.named_parameters()}))
    (our_losses, our_gradients), (their_losses, their_gradients) = found
    assert our_losses == their_losses
    assert our_losses.keys() >= {"loss_classifier", "loss_mask", "loss_rpn_box_reg"}
    for name, gradient in their_gradients.items():
        assert gradient is not None
        torch.testing.assert_close(our_gradients[name], gradient, rtol=0, atol=0)


def test_what_learns_is_what_torchvision_lets_learn() -> None:
    with torch.device("meta"):
        theirs = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2, num_keypoints=17)
        ours = detector_network(50, 2, 17, frozen_bn=False, trainable_layers=5)
        frozen = detector_network(50, 2, 17)
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(parameter.requires_grad for parameter in ours.parameters())
    fixed = {name.split(".")[2] for name, p in frozen.named_parameters() if not p.requires_grad}
    assert fixed == {"conv1", "layer1"}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())


@pytest.mark.parametrize(
    ("blocks", "options"),
    [
        ({"backbone_block": True}, {"depth": 50}),
        ({"backbone_block": True}, {"depth": 101}),
        ({"head_blocks": True}, {"num_keypoints": 3}),
        ({"head_blocks": True, "backbone_block": True}, {"num_keypoints": 3}),
        ({"control": ControlConfig("average", {"res4": [4]})}, {"depth": 50}),
        ({"control": ControlConfig("query_independent", {"res4": [4]})}, {"num_keypoints": 3}),
        ({"control": ControlConfig("residual", {"res4": [4], "res3": [1]})}, {"depth": 50}),
    ],
)
def test_a_new_block_changes_nothing_until_it_learns(blocks: dict[str, Any], options: dict[str, Any]) -> None:
    plain, with_blocks = small(**options), small(**options, **blocks)
    shared = plain.state_dict()
    for name, tensor in with_blocks.state_dict().items():
        if ".non_local." not in name:
            assert torch.equal(shared.pop(name), tensor), name  # one seed: equal in all that they share
    assert not shared
    keypoints = options.get("num_keypoints", 0)
    assert losses(plain, keypoints=keypoints) == losses(with_blocks, keypoints=keypoints)
    with torch.no_grad():
        image = torch.rand(3, 64, 64)
        (one,), (other,) = plain.eval()([image]), with_blocks.eval()([image])
    assert len(one["boxes"]) > 0
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_residual_block_in_place_costs_what_the_non_local_block_does() -> None:
    """As `experiments/controls_objects.yaml` has them, for pictures of 96 x 96 at a quarter of the channels."""
    costs = []
    for options in ({"backbone_block": True}, {"control": ControlConfig("residual", {"res4": [4]}, hidden=0.375)}):
        with torch.device("meta"):
            net: Any = detector_network(50, 5, size=Size(width=0.25), frozen_bn=False, **options)
        with FlopCounterMode(display=False) as counter:
            net.backbone.body.layer3[4].non_local(torch.zeros(1, 256, 6, 6, device="meta"))
        costs.append(counter.get_total_flops())
    assert costs[1] / costs[0] == pytest.approx(1, abs=0.015)


@pytest.mark.parametrize("keypoints", [0, 3])
def test_an_image_without_objects_trains_the_background(keypoints: int) -> None:
    net = small(num_keypoints=keypoints, head_blocks=bool(keypoints), backbone_block=True)
    found = losses(net, 0, keypoints)
    assert all(torch.isfinite(loss) for loss in found.values())
    torch.stack(list(found.values())).sum().backward()


def multiply_adds(net: Any) -> int:
    """For one image, with 1,000 proposals and 100 detections, as in testing; the network is on the meta device."""
    heads, channels = net.roi_heads, net.backbone.out_channels
    with torch.no_grad(), torch.device("meta"), FlopCounterMode(display=False) as counter:
        maps = net.eval().backbone(torch.empty(1, 3, 800, 1344))
        net.rpn.head(list(maps.values()))
        heads.box_predictor(heads.box_head(torch.empty(1000, channels, 7, 7)))
        rois = torch.empty(heads.detections_per_img, channels, 14, 14)
        if heads.has_mask():
            heads.mask_predictor(heads.mask_head(rois))
        if heads.has_keypoint():
            heads.keypoint_predictor(heads.keypoint_head(rois))
    return counter.get_total_flops() // 2


def test_table_5_and_6_at_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Table 5: one block costs less than 5 % of the computation of either depth, as the paper says."""
    for draw in ("kaiming_normal_", "kaiming_uniform_"):  # no numbers to draw
        monkeypatch.setattr(nn.init, draw, lambda tensor, *_, **__: tensor)
    costs: dict[tuple[Any, ...], tuple[int, int]] = {}
    for options in [
        *((depth, 91, 0, block, False) for depth in (50, 101) for block in (False, True)),
        *((101, 2, 17, block, heads) for block, heads in ((False, False), (False, True), (True, True))),
    ]:
        with torch.device("meta"):
            net = detector_network(*options)
        names = [name for name, _ in net.named_modules() if name.endswith(".non_local")]
        in_backbone = [f"backbone.body.layer3.{21 if options[0] == 101 else 4}.non_local"] * options[3]
        assert names == in_backbone + [f"roi_heads.keypoint_head.{i}.non_local" for i in (3, 7, 11, 15)] * options[4]
        costs[options] = sum(p.numel() for p in net.parameters()), multiply_adds(net)
    assert costs[50, 91, 0, False, False][0] == 44_401_393  # as torchvision says of its own
    added = {
        depth: costs[depth, 91, 0, True, False][1] / costs[depth, 91, 0, False, False][1] - 1 for depth in (50, 101)
    }
    assert added == {50: pytest.approx(0.0495, abs=1e-4), 101: pytest.approx(0.0382, abs=1e-4)}
    plain, heads, both = (costs[101, 2, 17, *blocks] for blocks in ((False, False), (False, True), (True, True)))
    assert [heads[1] / plain[1] - 1, both[1] / plain[1] - 1] == pytest.approx([0.0668, 0.0875], abs=1e-4)
    assert [heads[0] - plain[0], both[0] - heads[0]] == [4 * 526_592, 2_101_760]


def test_start_weights_of_a_resnet_fill_the_backbone(tmp_path: Path) -> None:
    trained = _narrow(0.125)(Bottleneck, [3, 4, 6, 3])
    path = tmp_path / "resnet50.pth"
    torch.save(trained.state_dict(), path)
    torch.manual_seed(1)
    net = detector_network(50, 3, backbone_block=True, size=SMALL)  # BN is frozen: it has no counters
    kept = load_start(net, path)
    assert any(name.endswith("layer3.4.non_local.theta.weight") for name in kept)
    filled = net.state_dict().keys() - kept
    assert {name.split(".")[1] for name in filled} == {"body"}
    assert all(torch.equal(net.state_dict()[name], trained.state_dict()[name[14:]]) for name in filled)
    assert len(filled) == sum("num_batches" not in name and "fc." not in name for name in trained.state_dict())


@pytest.mark.parametrize("old", [False, True])
def test_start_weights_of_a_detector_fill_all_but_predictors_of_other_classes(old: bool, tmp_path: Path) -> None:
    trained = small(seed=1).state_dict()
    path, state = tmp_path / "detector.pth", dict(trained)
    if old:  # names of torchvision 0.12 and earlier
        for name in list(state):
            earlier = re.sub(r"(_blocks\.\d+|head\.conv\.0)\.0\.", r"\1.", name).replace("conv.0.", "conv.")
            earlier = re.sub(r"mask_head\.(\d)\.0", lambda found: f"mask_head.mask_fcn{int(found[1]) + 1}", earlier)
            state[earlier] = state.pop(name)
        assert state.keys() != trained.keys()
    torch.save(state, path)
    net = detector_network(50, 7, backbone_block=True, size=SMALL, frozen_bn=False, settings=FEW)
    kept = load_start(net, path)
    assert {name.rpartition(".")[0] for name in kept if ".non_local." not in name} == {
        *(f"roi_heads.box_predictor.{part}" for part in ("cls_score", "bbox_pred")),
        "roi_heads.mask_predictor.mask_fcn_logits",
    }
    assert all(torch.equal(net.state_dict()[n], trained[n]) for n in trained if n not in kept)


def test_wrong_start_weights_are_one_line(tmp_path: Path) -> None:
    net, path = small(), tmp_path / "other.pth"
    with pytest.raises(UserError, match=r"^start: there is no file .*other\.pth; torchvision's resnet50-"):
        load_start(net, path)
    torch.save([1], path)
    with pytest.raises(UserError, match="holds no state dict"):
        load_start(net, path)
    with torch.device("meta"):
        names = resnet101().state_dict()
    torch.save({name: torch.zeros(1) for name in names}, path)
    with pytest.raises(
        UserError, match=r"these weights are not this network's; left over: .*layer3\.6.*of another shape"
    ):
        load_start(net, path)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"head_blocks": True}, r"^head_blocks: they are in the keypoint head; set num_keypoints"),
        (
            {"settings": {"min_sise": 3}},
            r"^settings\.min_sise: MaskRCNN has no such setting; did you mean 'min_size'\?",
        ),
        (
            {"control": ControlConfig("average", {"res4": [4]}), "backbone_block": True},
            r"^control: average stands in the place of non-local blocks",
        ),
        ({"control": ControlConfig("hidden")}, r"^control: hidden is of networks that classify"),
        ({"control": ControlConfig("average", {"res4": [6]})}, r"^control\.placement\.res4"),
        ({"settings": {"box_head": 3}}, r"^settings\.box_head: MaskRCNN has no such setting"),
        ({"settings": {"mask_roi_pool": 3}}, r"^settings: mask_roi_pool should be of type"),
    ],
)
def test_wrong_settings_are_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line), torch.device("meta"):
        detector_network(size=SMALL, **options)


def test_sizes_beyond_reason_are_refused() -> None:
    with pytest.raises(UserError, match="size: expected numbers above 0"):
        Size(width=0)


def test_a_narrow_resnet_keeps_its_depth() -> None:
    with torch.device("meta"):
        narrow, whole = _narrow(0.25)(Bottleneck, [3, 4, 23, 3]), ResNet(Bottleneck, [3, 4, 23, 3])
    shapes = [
        {n: s.shape for n, s in net.state_dict().items() if s.ndim == 4 and n != "conv1"} for net in (narrow, whole)
    ]
    assert shapes[0].keys() == shapes[1].keys()
    assert all(small[0] * 4 == wide[0] for small, wide in zip(shapes[0].values(), shapes[1].values(), strict=True))
