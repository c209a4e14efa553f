"""The table of commands."""

import re
from collections.abc import Sequence
from typing import Any

from nl_lightning import __version__
from nl_lightning.cli import results, studies, videos
from nl_lightning.cli.parsing import Parser, add_commands, bind
from nl_lightning.errors import UserError, visible

COMMANDS: dict[str, Any] = {
    "init": studies.init,
    "run": studies.run,
    "status": studies.status,
    "report": results.report,
    "tables": results.tables,
    "sweeps": studies.sweeps,
    "wandb-report": results.wandb_report,
    "power": results.power,
    "complexity": videos.complexity,
    "rescore": videos.rescore,
    "predict": videos.predict,
    "attend": videos.attend,
    "reach": videos.reach,
    "weights": {"import": videos.weights_import, "export": videos.weights_export, "publish": videos.weights_publish},
    "data": {"check": videos.data_check, "prepare": videos.data_prepare, "shards": videos.data_shards},
    "fit": None,  # LightningCLI parses these
    "validate": None,
    "test": None,
}
PURPOSES = {
    "weights": "Weight files: import those of other projects, export and publish ours",
    "data": "Data sets: check every file, make a copy that decodes fast, pack shards",
    "fit": "Train one network, on videos of your own or of a recipe",
    "validate": "Measure one-clip accuracy on the validation list",
    "test": "Measure accuracy over all views of each test video",
}
HELP = """\
usage: nl-lightning {command} [--config RECIPE] [--KEY=VALUE ...]

{purpose}.

A recipe sets everything. A key on the command line overrides the recipe's. For videos
of your own, start from the recipe folder.

  --config RECIPE                   its name or file; of several, later ones override earlier ones
  --data.root=DIR                   folder of the data set
  --data.train_list=FILE            videos to train on; also --data.val_list, --data.test_list
  --data.batch_size=N               fit, validate: videos in a batch, on each GPU
  --data.num_clips=N                test: clips of each video; --data.num_crops: crops of each clip
  --data.test_crop=N                test: side of a crop in pixels, or whole for whole frames
  --data.clip_starts=paper          test: by whose formula clips and crops lie, such as release
  --model.net.num_classes=N         number of classes
  --model.net.depth=50              ResNet-50 or ResNet-101
  --model.net.non_local=JSON        blocks: {{"placement": {{"res4": [4]}}, "instantiation": "gaussian"}}
  --model.init_from=FILE            fit: weights to start from
  --model.init_new=[non_local]      fit: parts that stay new where these weights lack them
  --model.predictions=FILE.parquet  test: keep what is predicted for each video
  --weights FILE                    validate, test: a weight file; it needs only the data, by keys or --config
  --ckpt_path=FILE                  a checkpoint: go on from it (fit), or measure it
  --trainer.max_epochs=N            fit: epochs
  --trainer.devices=N               GPUs
  --trainer.default_root_dir=DIR    where checkpoints go
  --seed_everything=N               seed of weights, order and augmentation

'nl-lightning {command} --help-all' lists every key (LightningCLI, some 800 lines).
"""
"""A line whose text begins with commands is only shown for these."""


def parser() -> Parser:
    """The parser of all commands but LightningCLI's."""
    found = Parser(prog="nl-lightning", description="Re-run, check and extend the ablation tables of a paper on video.")
    version = f"nl-lightning {__version__}"
    found.add_argument("--version", action="version", version=version, help="print the version and exit")
    add_commands(found.add_subparsers(required=True, metavar="COMMAND"), COMMANDS, PURPOSES)
    return found


def call(words: Sequence[str]) -> int:
    """Run the command that these words say; return its exit code."""
    for word in words:
        if "\0" in word:
            raise UserError(f"'{visible(word[:60])}' holds a zero byte, which no name can have")
    if words and COMMANDS.get(words[0], call) is None:
        return _lightning(list(words))
    found = parser().parse_args(words)
    code: int = bind(found.command, found)
    return code


def _lightning(words: list[str]) -> int:
    if {"-h", "--help"} & set(words):
        page = HELP.format(command=words[0], purpose=PURPOSES[words[0]])
        others = "|".join({"fit", "validate", "test"} - {words[0]})
        print(re.sub(rf"^.{{36}}(?:{others})(?:, (?:{others}))?: .*\n", "", page, flags=re.M), end="")
        return 0
    from nl_lightning.train.lightning_cli import lightning_command  # takes seconds: torch

    return lightning_command(["--help" if word == "--help-all" else word for word in words])
