"""Small videos annotated as Charades is, several classes in each, and a recipe whose runs take seconds."""

from pathlib import Path

import numpy as np

from nl_lightning.data import longrange

COLOURS = ((235, 60, 50), (60, 210, 70), (80, 110, 250), (240, 240, 240))
"""Of a class: it is there if a square of its colour is."""
CLASSES = "".join(f"c{label:03d} Holding square {label}\n" for label in range(len(COLOURS)))
COLUMNS = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
RECIPE = """
model:
  net: {{num_classes: 4, width: 0.015625, temporal_strides: [1, 1, 2],
         spatial_strides: [2, 2, 1, 1, 1, 1], dropout: 0}}
  multi_label: true
  optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 0.003}}}}
data:
  root: {root}
  train_list: Charades_v1_train.csv
  val_list: Charades_v1_test.csv
  num_frames: 4
  short_side: [36, 36]
  crop: 32
  test_short_side: 36
  test_crop: 32
  num_clips: 2
  num_crops: 1
  batch_size: 8
  test_batch_size: 4
trainer: {{accelerator: cpu, devices: 1, max_epochs: 2, enable_model_summary: false}}
"""


def write_tiny_charades(folder: Path) -> Path:
    """Write ``charades/``, of 16 videos to train on and 9 to test, and ``tiny.yaml``, which is returned."""
    root = folder / "charades"
    root.mkdir(parents=True)
    (root / "Charades_v1_classes.txt").write_text(CLASSES)
    for split, videos, seed in (("train", 16, 0), ("test", 9, 1)):
        rows = [COLUMNS, *(_write(root, f"{split.upper()}{video:02d}", (seed, video)) for video in range(videos))]
        rows.append(
            f'{split.upper()}99,S1,Kitchen,6,7,Yes,"A person, ""idle"".",door,nothing;at all,,12.00'
        )  # no action
        (root / f"Charades_v1_{split}.csv").write_text("\n".join(rows) + "\n")
    (folder / "tiny.yaml").write_text(RECIPE.format(root=root))
    return folder / "tiny.yaml"


def _write(root: Path, name: str, seed: tuple[int, int]) -> str:
    """Write a video; return its row. A class may be said twice, as in Charades."""
    generator = np.random.default_rng(seed)
    labels = sorted(generator.choice(len(COLOURS), size=generator.integers(1, 4), replace=False).tolist())
    frames = np.full((12, 36, 36, 3), 40, np.uint8)
    for label in labels:
        top, left = generator.integers(0, 26, size=2)
        frames[:, top : top + 10, left : left + 10] = COLOURS[label]
    (root / f"{name}.mp4").write_bytes(longrange.encode(frames, 12))
    actions = ";".join(f"c{label:03d} 0.00 1.00" for label in [*labels, labels[0]])
    return f'{name},S0,Kitchen,6,7,Yes,"A person walks, and sits.",door;table,"walks, then sits.",{actions},1.00'
