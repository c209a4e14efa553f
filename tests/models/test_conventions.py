"""Profiles, overrides, and what becomes of them on the way through the command line."""

from dataclasses import fields
from typing import Any

import pytest

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import PROFILES, Conventions, Rules
from nl_lightning.train.lightning_cli import VideoCLI
from nl_lightning.train.run_cli import ANY_MACHINE


def test_every_rule_can_be_overridden() -> None:
    assert {f.name for f in fields(Conventions)} == {"profile"} | {f.name for f in fields(Rules)}


def test_the_profiles_differ_where_paper_and_code_do() -> None:
    """All but the start of the block, which is zero in both, and what is for imported weights and long clips only."""
    same = {f.name for f in fields(Rules) if len({getattr(rules, f.name) for rules in PROFILES.values()}) == 1}
    assert same == {"nonlocal_gamma", "norm", "nonlocal_norm", "res3_group"}


@pytest.mark.parametrize("profile", ["paper", "release"])
def test_an_override_changes_its_rule_alone(profile: str) -> None:
    rules = Conventions(profile, scale=False, nonlocal_gamma=1.0).rules  # type: ignore[arg-type]
    assert (rules.scale, rules.nonlocal_gamma) == (False, 1.0)
    assert rules.max_pool == PROFILES[profile].max_pool


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(UserError, match="profile: expected one of paper, release, not 'code'"):
        Conventions("code")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), "0", [0]])
def test_a_number_is_finite(value: Any) -> None:
    with pytest.raises(UserError, match="nonlocal_gamma: expected a number, not "):
        Conventions(nonlocal_gamma=value)


def test_a_switch_is_on_or_off_and_frames_are_whole() -> None:
    with pytest.raises(UserError, match=r"scale: expected True or False, not 0\.5"):  # it would be taken for True
        Conventions(scale=0.5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"res3_group: expected a whole number, not 2\.5"):
        Conventions(res3_group=2.5)  # type: ignore[arg-type]


def test_a_group_of_frames_is_a_number_of_them() -> None:
    with pytest.raises(UserError, match="res3_group: expected a number of frames, or 0 for all, not -4"):
        Conventions(res3_group=-4)


def test_the_command_line_gives_the_profile_that_was_asked_for() -> None:
    arguments = ["--data.root=.", "--model.net.conventions.profile=release", "--model.net.conventions.scale=false"]
    cli = VideoCLI(args=[*arguments, *ANY_MACHINE], run=False, trainer_defaults={"logger": False})
    assert cli.model.net.config.conventions.rules == Conventions("release", scale=False).rules
