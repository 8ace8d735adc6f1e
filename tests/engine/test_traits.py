"""The traits of an attack are checked when its name is used; a wrong one is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from satbench.attacks import ATTACKS, attack_spec, parse_attack
from satbench.attacks.gradient.pgd import PGD
from satbench.attacks.suites.suite import check_suite, parse_suite
from satbench.core.errors import SatbenchError
from satbench.core.noise import Noise
from satbench.core.registry import Entry
from satbench.core.threat import Threat
from satbench.engine.judge import check_allowed
from satbench.engine.traits import Traits, check_attack, check_class, check_fit, traits_of

LINF = Threat.parse("linf:8/255")


def search(self: object, model: Any, x: Tensor, y: Tensor, threat: Threat, noise: Any) -> Tensor:
    return x


def an_attack(fields: list[Any] | None = None, frozen: bool = True, **names: Any) -> Any:
    """Make an attack class with these names; `__call__=None` leaves that method out."""
    held = {"__call__": search, **names}
    if held["__call__"] is None:
        del held["__call__"]
    return make_dataclass("Odd", fields or [], namespace=held, frozen=frozen)


def refused(cls: Any) -> str:
    """Return the error for a class, which registration also raises."""

    def register() -> None:
        check_class("odd", cls)
        check_attack("odd", cls())

    with pytest.raises(SatbenchError) as error:
        register()
    assert str(error.value).startswith("odd")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that puts an attack into the registry under the name `odd`."""
    held = dict(ATTACKS._entries)
    monkeypatch.setattr(ATTACKS, "_entries", held)

    def add(cls: type) -> None:
        monkeypatch.setitem(globals(), "ODD", cls)
        held["odd"] = Entry("odd", f"{__name__}:ODD", "an odd attack")

    return add


def test_undeclared_traits_have_their_defaults() -> None:
    assert traits_of(an_attack()()) == Traits(("linf", "l2", "l1"), True, None, ())


def test_traits_are_read_from_the_class_a_property_or_a_parameter() -> None:
    cls = an_attack(
        [("block", int, field(default=7))],
        norms=("l2",),
        uses_gradients=False,
        surrogates=property(lambda self: ("a",) * self.block),
    )
    check_class("odd", cls)

    assert traits_of(cls(2)) == Traits(("l2",), False, 2, ("a", "a"))


@pytest.mark.parametrize("name", ATTACKS.names())
def test_every_attack_of_the_registry_satisfies_the_contract(name: str) -> None:
    check_class(name, ATTACKS[name].load())
    check_attack(name, parse_attack(name))


@pytest.mark.parametrize(
    ("misspelt", "value", "meant"),
    [
        ("norm", ("linf",), "norms"),
        ("Norms", ("linf",), "norms"),
        ("use_gradients", False, "uses_gradients"),
        ("uses_gradient", False, "uses_gradients"),
        ("usesGradients", False, "uses_gradients"),
        ("blocks", 250, "block"),
        ("surrogate", ("a-model",), "surrogates"),
        ("part", lambda self: (), "parts"),
        ("select", lambda self, history: history.survivors, "selects"),
        ("prepares", lambda self, target, surrogates, threat, seed: self, "prepare"),
        ("neares", lambda self, model, x, y, norm, noise: x, "nearest"),
    ],
)
def test_a_misspelt_trait_is_refused_with_the_nearest_one(
    misspelt: str, value: object, meant: str
) -> None:
    assert f"unknown trait {misspelt!r}: did you mean {meant!r}?" in refused(
        an_attack(**{misspelt: value})
    )


@pytest.mark.parametrize("name", ["gradient_free", "threats", "targeted"])
def test_an_unknown_class_attribute_is_refused_with_the_known_traits(name: str) -> None:
    assert "known: norms, uses_gradients, block, surrogates" in refused(an_attack(**{name: True}))


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("uses_gradient", bool, False),
        ("blocks", int, 250),
        ("norm", str, "linf"),
        ("norm", tuple, ("linf",)),
    ],
)
def test_a_misspelt_trait_among_the_parameters_is_refused(
    name: str, kind: type, default: object
) -> None:
    assert "did you mean" in refused(an_attack([(name, kind, field(default=default))]))


@pytest.mark.parametrize(
    "names",
    [
        {"_helper": 3, "MOST": 10, "step_once": lambda self: 1},
        {"halves": property(lambda self: 2)},
        {"norms": ("linf", "l1"), "block": 5, "uses_gradients": False, "surrogates": ()},
    ],
)
def test_an_attack_may_have_other_public_names(names: dict[str, Any]) -> None:
    cls = an_attack([("queries", int, field(default=3)), ("source", str, field(default="x"))])
    check_class("odd", make_dataclass("More", [], bases=(cls,), namespace=names, frozen=True))


@pytest.mark.parametrize(
    ("trait", "values"),
    [
        ("norms", ["linf", (), ("Linf",), ("linf", "l3"), None, ("linf", 2), {"linf"}]),
        ("uses_gradients", ["no", 0, None]),
        ("block", [0, -250, 2.5, "250", True, (250,)]),
        ("surrogates", ["a-model", None, (3,)]),
    ],
)
def test_a_trait_of_a_wrong_type_or_value_is_refused(trait: str, values: list[object]) -> None:
    for value in values:
        assert f"expected the trait {trait} as" in refused(an_attack(**{trait: value}))


def test_a_trait_that_a_spec_cannot_express_may_not_be_a_parameter() -> None:
    cls = an_attack([("norms", tuple, field(default=("linf",)))])

    assert "expected the trait norms on the class, got it as a parameter" in refused(cls)


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (an_attack(frozen=False), "write @dataclass(frozen=True)"),
        (an_attack(__call__=None), "to have __call__(self, model, x, y, threat, noise)"),
        (an_attack(__call__=lambda self, model, x, y: x), "to have __call__(self, model, x, y, th"),
        (an_attack([("weights", list, field(default_factory=list))]), "got weights of type"),
        (an_attack([("steps", int)]), "a default for every parameter, got none for steps"),
        (an_attack(parts=lambda self, threat: ()), "to have parts(self)"),
        (an_attack(parts=3), "expected parts as a method, got 3"),
        (an_attack([("nearest", bool, field(default=True))]), "expected nearest as a method"),
        (an_attack([("steps", "NoSuchType", field(default=1))]), "annotations that can be read"),
        (object(), "expected a frozen dataclass behind the name"),
    ],
)  # fmt: skip
def test_an_invalid_attack_class_is_refused(cls: Any, said: str) -> None:
    assert said in refused(cls)


def test_the_example_of_the_documentation_is_an_attack(small_net: Callable[..., nn.Module]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "own-attack.md").read_text()
    held: dict[str, Any] = {}
    code = page.partition("```python\n")[2].partition("```")[0]
    exec(compile(code, "own-attack.md", "exec", dont_inherit=True), held)
    net, stripes = small_net(), held["Stripes"]
    check_class("stripes", stripes)
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y, threat = net(x).argmax(1), Threat.parse("linf:0.3")

    x_adv = stripes()(net, x, y, threat, Noise(0, "stripes", tuple(range(5))))

    check_allowed(x, x_adv, threat)
    assert (net(x_adv).argmax(1) != y).any()


# Parts


@dataclass(frozen=True)
class Part:
    """An attack."""

    def __call__(self, model: Any, x: Tensor, y: Tensor, threat: Threat, noise: Any) -> Tensor:
        return x


@dataclass(frozen=True)
class WrongTrait(Part):
    """An attack with a wrong trait."""

    block: ClassVar[Any] = "all"


@dataclass(frozen=True)
class Misspelt(Part):
    """An attack with a misspelt trait."""

    use_gradients: ClassVar[bool] = False


def composite(parts: object, **names: Any) -> Any:
    return an_attack(__call__=None, parts=lambda self: parts, **names)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((), "one pair (name, attack) or more, got ()"),
        ([], "one pair (name, attack) or more, got []"),
        (None, "one pair (name, attack) or more, got None"),
        ((Part(),), "pairs (name, attack), got Part()"),
        ((("", Part()),), "pairs (name, attack), got ('', Part())"),
        ((("a", Part), ), "odd/a: expected a part to be an attack"),
        ((("a", lambda model, x: x), ), "odd/a: expected a part to be an attack"),
        ((("a", "pgd-20"), ), "odd/a: expected a part to be an attack"),
        ((("a", composite((("b", Part()),))()), ), "odd/a: expected a part to be an attack"),
        ((("a", WrongTrait()), ), "odd/a: expected the trait block"),
        ((("a", Misspelt()), ), "odd/a: unknown trait 'use_gradients'"),
        ((("a", Part()), ("a", Part())), "parts of different names, got a, a"),
    ],
)  # fmt: skip
def test_a_composite_attack_with_invalid_parts_is_refused(parts: object, said: str) -> None:
    assert said in refused(composite(parts))


def test_a_composite_attack_may_not_declare_traits_of_its_parts() -> None:
    assert "uses_gradients to be declared by the parts" in refused(
        composite((("a", Part()),), uses_gradients=False)
    )


def test_a_composite_attack_of_valid_parts_is_accepted(register: Any) -> None:
    register(composite((("a", Part()), ("b", PGD())), norms=("linf",)))

    assert [stage.title for stage in parse_suite(["odd"])] == ["odd/a", "odd/b"]


@pytest.mark.parametrize(
    "cls",
    [an_attack(norm=("linf",)), an_attack(block="all"), composite(())],
    ids=["misspelt", "wrong", "empty"],
)
def test_the_registry_returns_no_attack_that_violates_the_contract(cls: Any, register: Any) -> None:
    register(cls)
    for use in (parse_attack, attack_spec, lambda text: parse_suite([text])):
        with pytest.raises(SatbenchError, match=r"^odd: "):
            use("odd")


# Attacks and threat models


def test_an_attack_for_another_norm_is_refused(register: Any) -> None:
    register(composite((("a", Part()), ("b", an_attack(norms=("l2",))()))))
    check_suite(parse_suite(["odd"]), Threat.parse("l2:1"))

    for text, threat in (("odd", LINF), ("fast", Threat.parse("l1:12"))):
        with pytest.raises(SatbenchError, match=rf"^expected .*l2 for .*, got {threat.norm}; take"):
            check_suite(parse_suite([text]), threat)


STEPS = ["pgd", "cosine-pgd", "malt", "transfer"]
THREATS = ["linf:8/255", "l2:0.5", "l1:12"]


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("attack", STEPS)
def test_a_step_above_2_eps_is_refused_with_a_suggestion(attack: str, threat: str) -> None:
    suite = parse_suite([f"{attack}(step=50)"])
    with pytest.raises(SatbenchError) as error:
        check_suite(suite, Threat.parse(threat))

    said = str(error.value)
    assert said.startswith(f"{attack}: expected a step of at most 2 eps under {threat}, got 50: ")
    assert "did you mean steps=50" in said
    again = said.rpartition("step=")[2]  # the suggested value is accepted
    check_suite(parse_suite([f"{attack}(step={again})"]), Threat.parse(threat))


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("attack", STEPS)
@pytest.mark.parametrize("step", ["50*eps", "2*eps", "eps/4", "1/255"])
def test_a_step_in_units_of_eps_or_up_to_2_eps_is_accepted(
    attack: str, threat: str, step: str
) -> None:
    check_suite(parse_suite([f"{attack}(step={step})"]), Threat.parse(threat))


SUITE = """
schema = 1
summary = "a search on some of the images"
[[parts]]
name = "chosen"
attack = "{attack}"
weakest = 0.5
"""


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("pgd(step=50)", r"^suite\..*: expected a step of at most 2 eps under linf:8/255, got 50"),
        ("malt(step=3)", r"^suite\..*: expected a step of at most 2 eps under linf:8/255, got 3"),
        ("foolbox.ddn", r"^expected l2 for suite\..*, got linf; take another attack"),
    ],
)
def test_an_attack_inside_a_suite_must_suit_the_threat_model(
    attack: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(SUITE.format(attack=attack))
    with pytest.raises(SatbenchError, match=said):
        check_suite(parse_suite([str(file)]), LINF)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("text", ["pgd(step=50)", "pgd-10(step=3)", "transfer(step=1)"])
def test_a_step_is_refused_before_an_attack_is_imported(text: str) -> None:
    code = f"""
import sys
from satbench.core.errors import SatbenchError
from satbench.evaluation.config import eval_config
try:
    eval_config("fmnist-sat-tiny-relu-s0", attacks=["{text}"])
except SatbenchError as error:
    print(error, "torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ": expected a step of at most 2 eps under linf:0.1, got " in done.stdout
    assert done.stdout.endswith(" False\n")


def test_the_bound_on_a_step_is_exact() -> None:
    check_suite(parse_suite(["pgd(step=16/255)"]), LINF)
    with pytest.raises(
        SatbenchError, match=r"got 0\.0628: Write a longer one .*, step=2\.00175\*eps$"
    ):
        check_suite(parse_suite(["pgd(step=0.0628)"]), LINF)


def test_grey_levels_are_suggested_for_a_step_if_they_fit() -> None:
    with pytest.raises(SatbenchError, match=r"did you mean steps=2 or step=2/255\? "):
        check_suite(parse_suite(["pgd(step=2)"]), LINF)


def test_a_plugins_step_has_the_same_bound(register: Any) -> None:
    from satbench.core.threat import Length

    default = Length.parse("1/255")
    register(an_attack([("first_step", Length, field(default=default))]))
    with pytest.raises(SatbenchError, match=r"^odd: expected a first_step of at most 2 eps"):
        check_fit("odd(first_step=3)", parse_attack("odd(first_step=3)"), LINF)
