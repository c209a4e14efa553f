"""Everything but the network: recipes, and the hash of what can change a run's numbers.

A *recipe* is data, clips, schedule and trainer, as configuration files of ``nl-lightning fit``. Only the few settings
that a study has to know are checked here; the rest is the training's to check. Nothing that a recipe names is imported.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nl_lightning.errors import UserError
from nl_lightning.study.border import Name, Positive, checked, load_yaml, shown
from nl_lightning.study.files import read_text
from nl_lightning.study.finding import experiments_folders, find
from nl_lightning.study.study import NET, STILLS, Study, Value, Variant

# Settings that can't change a number: where things lie, how fast they go, what is shown. Not in a run's hash.
NEUTRAL = {
    "seed_everything", "data.root", "data.allow_outside", "data.shards", "data.manifest", "data.decode_seconds",
    "data.num_workers", "data.decoded_copy", "trainer.enable_model_summary", "trainer.default_root_dir",
    "trainer.logger", "trainer.enable_progress_bar", "trainer.accelerator", "trainer.log_every_n_steps",
    "model.kernels", "data.init_args.num_workers", "data.init_args.root", "data.init_args.data_dir",
}  # fmt: skip
# A batch is per process, so these change a number unless they are 1, which is the same as not saying it.
NEUTRAL_IF_ONE = {"trainer.devices", "trainer.num_nodes"}

# Settings that a run which starts from stills gives by itself.
_START = {"model.init_from": "or from", "model.imagenet": "or from", "model.init_new": "which set"}


@dataclass(frozen=True)
class _Model:
    multi_label: bool = False
    net: dict[str, Any] = field(default_factory=dict)
    init_from: str | None = None
    imagenet: str | None = None
    init_new: Any = None
    class_path: str | None = None

    @property
    def start(self) -> list[str]:
        """What it says of :data:`_START`."""
        return [key for key in _START if getattr(self, key.removeprefix("model.")) is not None]


@dataclass(frozen=True)
class _Data:
    folds: Positive = 1
    num_frames: Positive | None = None
    root: Any = None
    init_args: Any = None


@dataclass(frozen=True)
class _Known:
    """What a study has to know of a recipe. `stills`: networks start from 2-D ones, see :func:`with_stills`."""

    stills: bool = False
    model: _Model = field(default_factory=_Model)
    data: _Data = field(default_factory=_Data)
    trainer: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Everything but the network: the files for ``--config``, in order, and what they say together."""

    name: str
    files: tuple[Path, ...]
    config: Mapping[str, Any]

    @functools.cached_property
    def known(self) -> _Known:
        """Its settings that a study has to know."""
        return checked(_Known, self.config, f"{self.files[-1]}", unknown="ignore")

    @property
    def folds(self) -> int:
        """Official splits of its data, which the seeds stand for in turn (``data.folds``); 1 where there are none."""
        return self.known.data.folds

    @property
    def names(self) -> tuple[str, str]:
        """By which claims know its data: its own name, and that of the folder in which they lie."""
        data = self.known.data
        root = data.root or (data.init_args.get("root") if isinstance(data.init_args, dict) else None)
        return self.name, Path(str(root or "")).name

    @property
    def module(self) -> str | None:
        """The class of a LightningModule that isn't ours, as ``digits.Net``; None: our own networks."""
        return self.known.model.class_path

    def module_of(self, variant: Variant) -> str | None:
        """The class of a variant's LightningModule, which its settings may name in place of the recipe."""
        return variant.settings.get("model.class_path") or self.module

    @property
    def comment(self) -> list[str]:
        """What its file opens with: hardware, hours, what it needs. A line that is indented goes on with the last."""
        lines = read_text(self.files[0]).splitlines()
        opening = "\n".join(line[1:] for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
        return [" ".join(line.split()) for line in re.sub(r"\n  +", " ", opening).splitlines()]

    @property
    def about(self) -> str:
        """The first paragraph of the comment that its file opens with: what its data can show."""
        return " ".join(itertools.takewhile(bool, self.comment))

    def overlay(self, clip: str) -> Path:
        """The file that changes this recipe for variants of this clip; it need not exist."""
        base = self.files[0]
        return base.with_name(f"{base.stem}_{clip}{base.suffix}")

    def with_clip(self, clip: str | None) -> "Recipe":
        """The recipe for variants of this clip; itself for None. UserError if it has no such file.

        The file is laid over it as LightningCLI does with a second ``--config``: see :func:`merged`.
        """
        if clip is None:
            return self
        overlay = self.overlay(clip)
        if not overlay.is_file():
            raise UserError(f"recipe '{self.name}' has no {overlay}, which variants with 'clip: {clip}' need")
        if (found := (clip, read_text(overlay))) not in self._overlaid:  # every run of a study asks
            config = merged(self.config, _recipe_config(overlay))
            self._overlaid[found] = Recipe(self.name, (*self.files, overlay), config)
        return self._overlaid[found]

    @functools.cached_property
    def _overlaid(self) -> dict[tuple[str, str], "Recipe"]:
        return {}

    def over(self, study: Study) -> "Recipe":
        """The recipe, laid over the classes that a study names."""
        return Recipe(self.name, self.files, merged(study.base, self.config)) if study.base else self

    def check_measures(self, study: Study) -> None:
        """UserError if the study isn't of this recipe's kind: by its networks, or by the metric that testing gives."""
        module, metric = self.over(study).module, study.metric
        odd = [name for name, variant in study.variants.items() if bool(variant.net) == (module is not None)]
        if odd and module is not None:
            raise UserError(
                f"{study.path}: variants.{odd[0]}.net: is of our own networks; of {module}, give 'settings'"
            )
        if odd:
            named = "neither study nor recipe names a class as model: {class_path: ...}"
            raise UserError(f"{study.path}: variants.{odd[0]}: the key 'net' is missing, and {named}")
        if metric.own != (module is not None):
            logged = "metric: {name: test/accuracy, better: higher}" if module else "metric: top1, or mAP"
            raise UserError(
                f"{study.path}: metric: {metric.key} isn't what {module or 'our own networks'} can be compared by: "
                f"expected {'for example ' if module else ''}{logged}"
            )
        if module is not None:
            if self.known.stills:
                raise UserError(f"{self.files[0]}: stills: is of our own networks, not of {module}")
        elif (several := self.known.model.multi_label) != study.metric.multi_label:
            each = "several classes" if several else "one class"
            raise UserError(
                f"{study.path}: networks are compared by {study.metric.key}, but videos of recipe '{self.name}' have "
                f"{each} each (model.multi_label): take another --recipe"
            )


def find_recipe(name_or_path: str | Path) -> Path:
    """The file of a recipe: ``longrange`` is ``experiments/recipes/longrange.yaml``; a path is taken as it is."""
    return find(name_or_path, lambda: [folder / "recipes" for folder in experiments_folders()], "recipe")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe, see :func:`find_recipe`."""
    path = find_recipe(name_or_path)
    return Recipe(checked(Name, path.stem, f"{path}"), (path,), _recipe_config(path))


def _recipe_config(path: Path) -> dict[str, Any]:
    config = load_yaml(path)
    known = checked(_Known, config, str(path), unknown="ignore")
    _refuse_dotted(checked(dict[str, Value], config, str(path)), str(path))
    # A network in a recipe would slip into every variant that leaves the key out, baselines above all.
    for key in ("depth", "inflate", "non_local", "control"):
        if key in known.model.net:
            raise UserError(f"{path}: model.net.{key} belongs to the variants of a study, not to a recipe")
    assert isinstance(config, dict)
    return config


def _refuse_dotted(config: object, at: str) -> None:
    """UserError for a key such as ``data.folds``: it could say again what ``data`` says, and studies don't look there.

    What a class is called with may have any keys.
    """
    for key, value in config.items() if isinstance(config, dict) else ():
        first, dot, rest = key.partition(".")
        if dot:
            raise UserError(f"{at}: {shown(key)}: write it as {first}: {{{rest}: ...}}")
        if key not in ("init_args", "dict_kwargs"):
            _refuse_dotted(value, at)


def with_stills(study: Study, recipe: Recipe) -> Study:
    """The study as `recipe` trains it.

    If the recipe says ``stills: true``, there is a plain 2-D network more for each depth and width, as ``stills_r50``,
    of the clip ``stills``: so it is trained under ``<recipe>_stills.yaml``, on single frames. Every variant that starts
    from no other one starts from the network of its depth and width, as the paper's start from ImageNet weights.

    UserError if the file is missing or says something else than single frames, or if other weights are named.
    """
    if not recipe.known.stills:
        return study
    at = recipe.files[0]
    _refuse_other_start(f"{at}: networks start", recipe.known.model.start)
    overlay = recipe.overlay(STILLS)
    if not overlay.is_file():
        raise UserError(
            f"{at}: stills: there is no {overlay}, which says how the networks of single frames are trained"
        )
    if (frames := recipe.with_clip(STILLS).known.data.num_frames) != 1:
        raise UserError(f"{overlay}: data.num_frames: expected 1, as networks of stills are 2-D, got {frames}")
    variants, added = dict(study.variants), {}
    for name, variant in study.variants.items():
        pixel = variant.net.get("control", {}).get("kind") == "pixel"  # no ResNet that could start from another
        if variant.init_from is None and variant.clip != STILLS and not pixel:
            _refuse_other_start(f"{study.path}: variants.{name}: starts", variant.settings)
            if variant.clip is not None and (above := recipe.overlay(variant.clip)).is_file():
                _refuse_other_start(f"{above}: networks start", recipe.with_clip(variant.clip).known.model.start)
            net = {key: variant.settings[key] for key in (f"{NET}depth", f"{NET}width") if key in variant.settings}
            plain = Variant(f"{STILLS}_r{'_w'.join(f'{value:g}' for value in net.values())}", net, STILLS)
            added[plain.name] = plain
            variants[name] = dataclasses.replace(variant, init_from=plain.name)
    for name in added:
        if name in study.variants and study.variants[name] != added[name]:
            raise UserError(f"{study.path}: variants.{name}: recipe {recipe.name} has a network of stills of this name")
    return dataclasses.replace(study, variants=variants | added)


def _refuse_other_start(who: str, given: Collection[str]) -> None:
    for key, why in _START.items():
        if key in given:
            raise UserError(f"{who} from stills, {why} {key}: leave one of them out")


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping laid over another: mappings merge, everything else is replaced."""
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return found


def with_key(config: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A configuration with another value laid over it at a dotted key, as ``data.batch_size``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return merged(config, value)


def hash_of(config: Mapping[str, Any], arguments: list[str], parent_hash: str | None, seed: int) -> str:
    """12 hexadecimal digits that change with everything that can change the numbers of a run.

    They cover the merged recipe but for :data:`NEUTRAL`, the variant's arguments, the seed, and the hash of the run
    whose weights it starts from.
    """
    run = {"recipe": _without(config, ""), "variant": arguments, "seed": seed, "parent": parent_hash}
    canonical = json.dumps(run, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _without(config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        key: _without(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in config.items()
        if f"{prefix}{key}" not in NEUTRAL and not (f"{prefix}{key}" in NEUTRAL_IF_ONE and value == 1)
    }


def run_hash(study: Study, recipe: Recipe, variant: str, seed: int) -> str:
    """The hash of a run of a study, parents included, see :func:`hash_of`; `recipe` is the one without clip."""
    network = study.variant(variant)
    parent = run_hash(study, recipe, network.init_from, seed) if network.init_from else None
    return hash_of(recipe.with_clip(network.clip).over(study).config, network.arguments(), parent, seed)
