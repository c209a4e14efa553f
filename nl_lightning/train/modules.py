"""Anybody's LightningModule in a study: its class by a path, its settings, and what its test hands over.

Importing a class runs the file that it is in. So only what trains or tests imports one: nothing that looks at results.
"""

import hashlib
import importlib
import inspect
import itertools
import math
import numbers
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonargparse
import pytorch_lightning as L
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import DistributedSampler

from nl_lightning.errors import UserError, nearest, one_line, say
from nl_lightning.study.border import load_yaml, shown
from nl_lightning.study.contradictions import factor_of
from nl_lightning.study.packing import pack_outcomes
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.run import Run, plan
from nl_lightning.study.study import Study
from nl_lightning.train.run_cli import ANY_MACHINE, RunCLI, be_quiet, config_files
from nl_lightning.train.together import from_all

HOOK = "test_outcomes"
"""Method of a LightningModule that hands over the number of each test item after a test: {item's name: number}."""
MOST_ITEMS = 2_000_000
"""Items whose numbers a record holds: 11 MB."""
WRITTEN = ("ckpt_path", "optimizer", "lr_scheduler", "weights_only")
"""Keys beside Lightning's own of the configuration that LightningCLI writes; a command has the first one itself."""
BASES = {"model": L.LightningModule, "data": L.LightningDataModule}


class ModuleCLI(RunCLI):
    """The command line of a LightningModule and, if it has one, a data module, both named by ``class_path``.

    Args:
        parse_only: make nothing; only see that every setting is one.
        folder: where classes are looked for as well, after the working folder and what is installed.
    """

    ours = False

    def __init__(self, *args: Any, parse_only: bool = False, folder: Path | None = None, **kwargs: Any) -> None:
        self.parse_only = parse_only
        sys.path.extend(place for place in map(str, (Path.cwd(), folder)) if place not in (*sys.path, "None"))
        super().__init__(*args, **kwargs)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**kwargs, allow_abbrev=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        for key in WRITTEN[len(self.command) > 0 :]:
            parser.add_argument(f"--{key}", type=type(None), help="null, as LightningCLI writes it")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.classes = {part: lightning_class(part, path) for part, path in named_classes(args).items()}
        super().parse_arguments(parser, args)

    def said(self, error: Exception) -> str:
        """What the parser says of a setting of a class, in one line with the nearest setting that there is."""
        line = one_line(error)
        part, kind, what = _PROBLEM.search(line), _UNKNOWN.search(line), _WRONG.search(line)
        if part is not None and kind is not None and part[1] in self.classes:
            of_class = jsonargparse.ArgumentParser(exit_on_error=False)  # with the settings of the classes above it
            of_class.add_class_arguments(self.classes[part[1]], part[1], fail_untyped=False)
            known = [action.dest for action in of_class._actions if action.dest.startswith(f"{part[1]}.")]
            key = f"{part[1]}.{kind[1]}"
            return f"{key}: {self.classes[part[1]].__name__} has no such setting{nearest(key, known)}"
        if part is not None and what is not None:
            wanted = re.sub(r"<class '(\w+)'>", r"\1", what[2])
            return f"{part[1]}.{what[1]}: {wanted[0].lower()}{wanted[1:400]}"
        return super().said(error)

    def instantiate_classes(self) -> None:
        if not self.parse_only:
            super().instantiate_classes()


_PROBLEM = re.compile(r'Parser key "(model|data)"')
_UNKNOWN = re.compile(r"Option '([\w.]+)' is not accepted")
_WRONG = re.compile(
    r"""given class_path '[\w.]+': Parser key "([\w.]+)": (.*?)"""
    r"""(?: - Expected a <class 'NoneType'>| Given value type|$)"""
)


_CLASS = re.compile(r"(?!.*\.(?:yaml|yml|json)$)[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")  # files can be given there as well


def named_classes(words: Sequence[str]) -> dict[str, str]:
    """The classes that the words of a command line name, and the files among them: ``{"model": "digits.Net"}``."""
    found: dict[str, str] = {}
    for file in config_files(words):
        config = load_yaml(file)
        for part in BASES:
            of = config.get(part) if isinstance(config, dict) else None
            if isinstance(of, dict) and isinstance(path := of.get("class_path"), str):
                found[part] = path
    for before, word in itertools.pairwise(["", *words]):
        key, _, value = (word if word.startswith("-") else f"{before}={word}").removeprefix("--").partition("=")
        for part in BASES:
            if key == f"{part}.class_path" or (key == part and _CLASS.fullmatch(value)):
                found[part] = value
            elif key == part and (path := re.search(r'"class_path": "([\w.]+)"', value)):
                found.setdefault(part, path[1])
    return found


def lightning_class(part: str, path: str) -> type:
    """The class at a path; importing it runs its file. UserError if there is none, or it isn't of Lightning's kind."""
    at, base = f"{part}.class_path", BASES[part]
    module, _, name = path.rpartition(".")
    found = getattr(_imported(module, at), name, None)
    if not isinstance(found, type):
        known = [key for key, value in vars(sys.modules[module]).items() if _lightning(value, base.__name__)]
        raise UserError(f"{at}: {module} has no class '{name}'{nearest(name, known)}")
    if issubclass(found, base):
        return found
    if _lightning(found, base.__name__):
        raise UserError(
            f"{at}: {path} is a {base.__name__} of the package 'lightning', and nl-lightning trains those of "
            f"'pytorch_lightning', which is the same code: import that one in {module}"
        )
    raise UserError(f"{at}: {path} is no {base.__name__} of pytorch_lightning")


def _lightning(value: object, base: str) -> bool:
    """Whether it inherits from a class of this name of either package of Lightning."""
    packages = ("pytorch_lightning", "lightning")
    above = value.__mro__[1:] if isinstance(value, type) else ()
    return any(one.__name__ == base and one.__module__.partition(".")[0] in packages for one in above)


def _imported(module: str, at: str) -> ModuleType:
    if not module:
        raise UserError(f"{at}: expected a module and a class, such as digits.Net")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            where = f"{error.name.partition('.')[0]}.py in {Path.cwd()} or beside the study, or an installed package"
            raise UserError(f"{at}: there is no module '{error.name}': expected {where}") from None
        raise UserError(f"{at}: {module} imports '{error.name}', which isn't installed") from None
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = one_line(error, 200)
        place = f"{Path(last.filename).name}, line {getattr(error, 'lineno', None) or last.lineno}"
        raise UserError(f"{at}: {module} can't be imported: {type(error).__name__}: {said} ({place})") from error


def check_variants(study: Study, recipe: Recipe) -> None:
    """See that every variant's settings are such, before anything is trained, and make the data. UserError if not."""
    be_quiet()
    for run in plan(study, recipe, [0], Path()):
        try:
            parsed = module_cli(run, parse_only=True, more=ANY_MACHINE)
        except UserError as error:
            raise UserError(f"{study.path}: variants.{run.variant.name}: {error}") from None
        check_tests(parsed)
    if "data" in parsed.classes:
        parsed.parser.instantiate_classes(parsed.config).get("data").prepare_data()


def check_tests(cli: ModuleCLI) -> None:
    """UserError if a LightningModule logs nothing in testing, as it has no ``test_step``."""
    kind = cli.classes["model"]
    if not is_overridden("test_step", kind, parent=L.LightningModule):
        raise UserError(f"{kind.__module__}.{kind.__name__} has no test_step, so it never logs what it is compared by")


def module_cli(run: Run, parse_only: bool = False, more: Sequence[str] = ()) -> ModuleCLI:
    """The command line of a run; with nothing made yet if `parse_only`."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    words: dict[str, Any] = {"args": [*run.arguments(), *more], "run": False, "trainer_defaults": quiet}
    return ModuleCLI(run.checkpoint_minutes, parse_only=parse_only, folder=run.study.path.resolve().parent, **words)


# --------------------------------------------------------------------------------------------------- what a test gave


def handed_over(cli: ModuleCLI) -> dict[str, float]:
    """The number of each test item, by the item's name in order; all processes have to ask. Empty: no hook.

    UserError if they aren't numbers, or not as many as there are test items.
    """
    hook, name = getattr(cli.model, HOOK, None), f"{type(cli.model).__name__}.{HOOK}"
    if hook is None:
        return {}
    own = hook()
    if not isinstance(own, Mapping):
        raise UserError(f"{name}: expected a number by the name of each test item, as a dict, got {shown(own)}")
    items: dict[str, float] = {}
    for part in from_all({str(item): _number(value, item, name) for item, value in own.items()}):
        items |= part
    tested = _tested(cli.trainer)
    if tested is not None and len(items) != tested:
        raise UserError(f"{name}: gave numbers of {len(items)} items, and {tested} were tested: expected one of each")
    if len(items) > MOST_ITEMS:
        say(f"{name}: {len(items)} items are too many to keep in a record: its intervals are over seeds")
        return {}
    return dict(sorted(items.items()))


def _number(value: Any, item: object, name: str) -> float:
    number = float(value) if isinstance(value, numbers.Real) or hasattr(value, "__float__") else math.nan
    if not math.isfinite(number):
        raise UserError(f"{name}: expected a finite number for item {shown(item)}, got {shown(value)}")
    return number


def tests_all(trainer: L.Trainer) -> bool:
    """Whether a test takes all batches."""
    return isinstance(trainer.limit_test_batches, float) and trainer.limit_test_batches == 1.0  # 1 is one batch


def _tested(trainer: L.Trainer) -> int | None:
    """How many items the test's data have, if they tell, and all of them were tested."""
    loaders: Any = trainer.test_dataloaders
    every = loaders if isinstance(loaders, list | tuple) else [loaders]
    try:
        sizes = [(len(one.dataset), len(one.sampler), one) for one in every]  # a sampler may choose some
        some = ((n > taken and type(one.sampler) is not DistributedSampler) or one.drop_last for n, taken, one in sizes)
        return None if any(some) or not tests_all(trainer) else sum(n for n, _, _ in sizes)
    except (TypeError, AttributeError):  # a stream, or data that are no DataLoader
        return None


def fields(run: Run, cli: ModuleCLI, found: Mapping[str, float], outcomes: Mapping[str, float]) -> dict[str, Any]:
    """Fields of the record of a run that has just been tested. UserError if its metric isn't among what was logged."""
    metric, model = run.study.metric, cli.model
    logged = {name: float(value) for name, value in found.items()}
    for one in metric.shown:
        if one.key not in logged:
            names = f"it logged {', '.join(logged)}" if logged else "it logged nothing"
            missing = f"{one.key} in testing{nearest(one.key, logged, otherwise_all=False)}"
            raise UserError(f"{run.study.path}: metric: {run.recipe.module} never logged {missing}; {names}")
    broken = "" if math.isfinite(logged[metric.key]) else metric.key
    if outcomes and not broken:
        each, value = list(outcomes.values()), logged[metric.key]
        of_others = [name for name in logged if factor_of(each, logged[name])]
        if not of_others:
            raise UserError(
                f"{type(model).__name__}.{HOOK}: the mean of its numbers is {sum(each) / len(each):.6g}, but "
                f"{metric.key} is {value:.6g}: hand over what that is the mean of, or leave the method out"
            )
        if factor_of(each, value) is None:  # one class may serve studies of several of its metrics
            say(f"{type(model).__name__}.{HOOK}: gave those of {of_others[0]}: {metric.key} has intervals over seeds")
            outcomes = {}
    names = "".join(f"{item}\n" for item in outcomes)
    return {
        "module": run.recipe.module_of(run.variant),
        "metrics": {name: value for name, value in logged.items() if math.isfinite(value)},
        "diverged": broken,
        "outcomes": pack_outcomes(list(outcomes.values())) if outcomes and not broken else "",
        "videos_expected": len(outcomes),
        "videos_scored": len(outcomes),
        "videos_hash": hashlib.sha256(names.encode("utf-8", "replace")).hexdigest()[:12] if outcomes else "",
        "params": max(1, sum(one.numel() for one in model.parameters())),
    }


def sources(cli: ModuleCLI) -> dict[str, str]:
    """12 hexadecimal digits of the file of each class that was named."""
    found = {}
    for kind in cli.classes.values():
        try:
            content = Path(inspect.getfile(kind)).read_bytes()
        except (OSError, TypeError):
            continue
        found[f"{kind.__module__}.{kind.__name__}"] = hashlib.sha256(content).hexdigest()[:12]
    return found
