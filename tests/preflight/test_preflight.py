from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satbench.attacks.suites.suite import parse_suite
from satbench.calling.modules import check_module
from satbench.core.errors import SatbenchError
from satbench.core.threat import Threat
from satbench.data import Dataset
from satbench.preflight.first_look import MOST
from satbench.preflight.image_checks import dataset_from_tensors
from satbench.preflight.independence import GROUP
from satbench.preflight.preflight import ASKED, Learnt, Needs, check_set_up

LINF = Threat.parse("linf:8/255")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(100, 1, 4, 4, generator=GENERATOR)
Y = torch.arange(100) % 10
USER = dataset_from_tensors(X, Y)
NAMED = replace(USER, name="fashion-mnist", more_classes=False)


class Model(nn.Module):
    """A linear classifier of 10 classes, and what a wrong one makes of the pixels and logits."""

    def __init__(
        self,
        after: Callable[[Tensor], object] = lambda logits: logits,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
        self.after, self.before = after, before

    def forward(self, x: Tensor) -> object:
        return self.after(self.net(self.before(x)))


def check(model: Any, dataset: Any = USER, threat: Any = LINF) -> None:
    check_set_up(model, dataset, threat)


def with_pixel(value: float, image: int = 99) -> Tensor:
    x = X.clone()
    x[image, 0, 1, 2] = value
    return x


# dataset_from_tensors


def test_tensors_become_a_dataset() -> None:
    dataset = dataset_from_tensors(X, Y)

    np.testing.assert_array_equal(dataset.images, X.numpy(), strict=True)
    np.testing.assert_array_equal(dataset.labels, Y.numpy(), strict=True)
    assert (dataset.name, dataset.split, dataset.classes) == ("tensors", "user", 10)


def test_numpy_arrays_become_the_same_dataset() -> None:
    assert dataset_from_tensors(X.numpy(), Y.numpy()).digest == USER.digest


def test_the_layout_in_memory_does_not_matter() -> None:
    x = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    dataset = dataset_from_tensors(x, Y[:2])

    np.testing.assert_array_equal(dataset.images, x.numpy())
    assert dataset.images.flags.c_contiguous


def test_the_byte_order_in_memory_does_not_matter() -> None:
    dataset = dataset_from_tensors(X.numpy().astype(">f4"), Y.numpy().astype(">i8"))

    assert dataset.digest == USER.digest
    assert (dataset.images.dtype.isnative, dataset.labels.dtype.isnative) == (True, True)


def test_images_that_require_grad_are_taken() -> None:
    assert dataset_from_tensors(X.clone().requires_grad_(), Y).digest == USER.digest


def test_there_are_as_many_classes_as_the_user_says() -> None:
    assert dataset_from_tensors(X, Y, classes=12).classes == 12


def test_black_and_white_pixels_are_allowed() -> None:
    dataset_from_tensors((X > 0.5).float(), Y)


def test_pixels_up_to_255_are_refused_with_the_remedy() -> None:
    with pytest.raises(
        SatbenchError, match=r"^expected pixels in \[0, 1\], got 0 to 255: divide them by 255$"
    ):
        dataset_from_tensors((X * 256).floor(), Y)


def test_negative_pixels_are_refused_with_the_remedy() -> None:
    with pytest.raises(
        SatbenchError,
        match=r"^expected pixels in \[0, 1\], got -0\.5 to .*: .* normalisation, which must be the "
        r"first layer of the model$",
    ):
        dataset_from_tensors(with_pixel(-0.5), Y)


def test_pixels_slightly_above_one_are_refused_with_the_remedy() -> None:
    with pytest.raises(SatbenchError, match=r"in \[0, 1\], got .* to 1\.00000012: clip them"):
        dataset_from_tensors(with_pixel(1 + 2**-23), Y)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_pixels_that_are_not_finite_are_refused_with_the_image(value: float) -> None:
    with pytest.raises(
        SatbenchError, match=r"^expected finite pixels, got NaN or infinity \(the first in image 57"
    ):
        dataset_from_tensors(with_pixel(value, image=57), Y)


@pytest.mark.parametrize("shape", [(1600,), (100, 16), (100, 4, 4), (100, 1, 4, 2, 2)])
def test_images_of_another_rank_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        SatbenchError, match=r"^expected images of shape \(N, C, H, W\), got shape \(1\d\d"
    ):
        dataset_from_tensors(X.reshape(shape), Y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_another_width_are_refused_with_the_remedy(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(
        SatbenchError,
        match=rf"^expected float32 pixels in \[0, 1\], got {name}: convert them, x\.float\(\)$",
    ):
        dataset_from_tensors(X.to(dtype), Y)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_whole_numbers_as_pixels_are_refused_with_the_remedy(dtype: torch.dtype) -> None:
    with pytest.raises(
        SatbenchError, match=r"got u?int\d+: convert them, x\.float\(\) / 255 if they are 0 to 255$"
    ):
        dataset_from_tensors((X * 255).to(dtype), Y)


def test_numpy_pixels_of_another_dtype_are_refused_in_numpys_words() -> None:
    with pytest.raises(SatbenchError, match=r"got float64: convert them, x\.astype\(np\.float32\)"):
        dataset_from_tensors(X.numpy().astype(np.float64), Y)


def test_a_list_of_images_is_refused() -> None:
    with pytest.raises(SatbenchError, match=r"images as a torch tensor or numpy array, got list"):
        dataset_from_tensors(list(X), Y)  # type: ignore[arg-type]


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(SatbenchError, match=r"at least one image, got an empty set, \(0, 1, 4, 4"):
        dataset_from_tensors(X[:0], Y[:0])


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.bool, torch.uint8])
def test_labels_of_another_dtype_are_refused_with_the_remedy(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(
        SatbenchError, match=rf"^expected int64 labels, got {name}: convert them, y\.long\(\)$"
    ):
        dataset_from_tensors(X, Y.to(dtype))


def test_numpy_labels_of_another_dtype_are_refused_in_numpys_words() -> None:
    with pytest.raises(SatbenchError, match=r"got int32: convert them, y\.astype\(np\.int64\)$"):
        dataset_from_tensors(X, Y.numpy().astype(np.int32))


def test_a_list_of_labels_is_refused() -> None:
    with pytest.raises(SatbenchError, match=r"labels as whole numbers in a list, .*, got list$"):
        dataset_from_tensors(X, Y.tolist())  # type: ignore[arg-type]


@pytest.mark.parametrize(("label", "kind"), [(1.0, "float"), ("cat", "str")])
def test_a_list_of_other_labels_is_refused_by_their_type(label: object, kind: str) -> None:
    with pytest.raises(SatbenchError, match=rf", got list with {kind}$"):
        dataset_from_tensors(X, [label] * len(X))  # type: ignore[arg-type]


def test_one_hot_labels_are_refused_with_the_remedy() -> None:
    with pytest.raises(
        SatbenchError, match=r"got shape \(100, 10\): convert one-hot .* y\.argmax\(1"
    ):
        dataset_from_tensors(X, torch.eye(10)[Y])


def test_labels_in_a_column_are_refused_with_the_remedy() -> None:
    with pytest.raises(SatbenchError, match=r"of shape \(N,\), got shape \(100, 1\): y\.reshape"):
        dataset_from_tensors(X, Y[:, None])


def test_fewer_labels_than_images_are_refused() -> None:
    with pytest.raises(SatbenchError, match=r"one label per image, got 100 images and 99 labels$"):
        dataset_from_tensors(X, Y[:99])


def test_negative_labels_are_refused() -> None:
    with pytest.raises(SatbenchError, match=r"^expected labels that start from 0, got -1: "):
        dataset_from_tensors(X, Y - 1)


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(SatbenchError, match=r"^expected labels in 0…8 for 9 classes, got 9: "):
        dataset_from_tensors(X, Y, classes=9)


# check_set_up: the arguments


def test_a_right_set_up_passes() -> None:
    check(Model())


def test_a_named_dataset_of_bytes_passes() -> None:
    images = (X.numpy() * 255).astype(np.uint8)
    check(Model(), Dataset("fashion-mnist", "test", images, Y.numpy(), 10))


def test_a_function_is_refused_as_a_model() -> None:
    with pytest.raises(
        SatbenchError,
        match=r"^expected the model as a torch\.nn\.Module, a function or a name, got function",
    ):
        check(Model().forward.__func__)


def test_a_class_is_refused_as_a_model() -> None:
    with pytest.raises(SatbenchError, match=r"got the class Model itself: "):
        check(Model)


def test_weights_on_several_devices_are_refused() -> None:
    class Elsewhere(nn.Parameter):
        device = torch.device("cuda", 1)

    model = Model()
    model.extra = Elsewhere(torch.zeros(1))
    with pytest.raises(
        SatbenchError, match=r"^expected the model on one device, got it on cpu and cuda:1: move"
    ):
        check(model)


def test_a_model_without_weights_is_on_no_device_and_passes() -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :10]

    check(Bare())


def test_tensors_are_refused_as_a_dataset() -> None:
    with pytest.raises(SatbenchError, match=r"got Tensor: make one with dataset_from_tensors\("):
        check(Model(), X)


def test_a_text_is_refused_as_a_threat_model() -> None:
    with pytest.raises(SatbenchError, match=r"got str: write Threat\.parse\('linf:8/255'\)"):
        check(Model(), threat="linf:8/255")


def test_an_eps_of_eight_cannot_even_become_a_threat_model() -> None:
    with pytest.raises(SatbenchError, match=r"expected eps at most 1 .*, got 8; write 8/255"):
        check(Model(), threat=Threat.of("linf", 8))


def test_a_dataset_made_by_hand_is_checked_too() -> None:
    with pytest.raises(SatbenchError, match=r"expected finite pixels, .* image 99\)"):
        check(Model(), replace(USER, images=with_pixel(torch.nan).numpy()))


def test_a_dataset_made_by_hand_needs_float32_or_bytes() -> None:
    with pytest.raises(SatbenchError, match=r"expected float32 pixels in \[0, 1\], got float64"):
        check(Model(), replace(USER, images=USER.images.astype(np.float64)))  # type: ignore[arg-type]


def test_a_dataset_made_by_hand_needs_labels_within_its_classes() -> None:
    with pytest.raises(SatbenchError, match=r"expected labels in 0…4 for 5 classes, got 9"):
        check(Model(), replace(NAMED, classes=5))


# check_set_up: the model's answers


@pytest.mark.parametrize(
    ("wrap", "place"),
    [
        (lambda z: (z, None), "its part 0"),
        (lambda z: [z.mean(), z], "its part 1"),
        (lambda z: {"logits": z, "features": z}, "its entry 'logits'"),
    ],
    ids=["tuple", "list", "dict"],
)
def test_logits_inside_another_object_are_used_and_reported(
    wrap: Callable[[Tensor], object], place: str
) -> None:
    learnt = check_set_up(Model(wrap), USER, LINF)

    assert learnt.notes == (f"the logits are {place} of what the model returns",)


def test_several_tensors_that_could_be_logits_are_refused() -> None:
    with pytest.raises(SatbenchError, match=r"one tensor of logits, got tuple with 2 that could"):
        check(Model(lambda z: (z, z)))


def test_a_plain_model_has_no_notes() -> None:
    assert check_set_up(Model(), USER, LINF) == Learnt()


def test_an_answer_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(SatbenchError, match=r"to return one tensor of logits, got ndarray: "):
        check(Model(lambda z: z.detach().numpy()))


@pytest.mark.parametrize("shape", [(320,), (32, 10, 1), (32, 10, 1, 1)])
def test_logits_of_another_rank_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        SatbenchError,
        match=r"^expected logits of shape \(32, classes\) for 32 images, got shape \(32",
    ):
        check(Model(lambda z: z.reshape(shape)))


def test_fewer_rows_of_logits_than_images_are_refused() -> None:
    with pytest.raises(SatbenchError, match=r"\(32, classes\) for 32 images, got shape \(16, 20\)"):
        check(Model(lambda z: z.reshape(16, 20)))


def test_whole_numbers_as_logits_are_refused() -> None:
    with pytest.raises(SatbenchError, match=r"of a floating dtype, got int64: .* before argmax"):
        check(Model(lambda z: z.long()))


def test_a_single_logit_is_refused() -> None:
    with pytest.raises(
        SatbenchError, match=r"one logit per class, got a single logit: .* torch\.cat"
    ):
        check(Model(classes=1), dataset_from_tensors(X, torch.zeros(100, dtype=torch.int64)))


def test_label_10_with_10_logits_is_refused() -> None:
    with pytest.raises(
        SatbenchError,
        match=r"^expected at least 11 logits per image, got 10: labels go up to 10 and start",
    ):
        check(Model(), dataset_from_tensors(X, Y + 1))


def test_more_logits_than_a_users_labels_need_are_allowed() -> None:
    check(Model(classes=11))


@pytest.mark.parametrize("classes", [9, 100])
def test_another_class_count_than_the_datasets_is_refused(classes: int) -> None:
    with pytest.raises(
        SatbenchError,
        match=rf"^wrong number of classes: expected 10 .* for fashion-mnist, got {classes};",
    ):
        check(Model(classes=classes), NAMED)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_refused_with_the_image(value: float) -> None:
    def spoil(logits: Tensor) -> Tensor:
        return logits + torch.zeros(len(logits), 1).index_fill(0, torch.tensor([5, 8]), value)

    with pytest.raises(
        SatbenchError,
        match=r"^expected finite logits, got NaN or infinity for 2 of 32 images "
        r"\(the first is image 5\): ",
    ):
        check(Model(spoil))


def test_a_model_for_other_shapes_is_refused_with_its_own_error() -> None:
    with pytest.raises(
        SatbenchError,
        match=r"^the model fails on 32 images of shape \(1, 4, 4\) in float32 on cpu: "
        r"RuntimeError: mat1 and mat2 shapes cannot be multiplied",
    ):
        check(Model(before=lambda x: x[..., :3]))


def test_a_model_in_float64_is_refused_with_its_own_error() -> None:
    with pytest.raises(
        SatbenchError, match=r"fails on 32 images .* in float32 .*dtype.*model\.float\(\)$"
    ):
        check(Model().double())


def test_the_image_that_a_model_fails_on_is_named() -> None:
    def fail(x: Tensor) -> Tensor:
        if (x == X[17]).flatten(1).all(1).any():
            raise RuntimeError("no such prototype")
        return x

    with pytest.raises(SatbenchError, match=r"on 1 image .* prototype \(image 17, before any"):
        check(Model(before=fail))


def test_only_the_first_line_of_a_models_error_is_shown() -> None:
    def fail(x: Tensor) -> Tensor:
        raise RuntimeError("first\nsecond")

    with pytest.raises(SatbenchError, match=r"on cpu: RuntimeError: first$"):
        check(Model(before=fail))


@pytest.mark.parametrize(
    "write", [lambda x: x.sub_(0.5), lambda x: x.detach().clamp_(0.5)], ids=["open", "hidden"]
)
def test_a_model_that_writes_into_its_input_is_refused(write: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(SatbenchError, match=r"not to change its input, .* x = x\.clone\(\)$"):
        check(Model(before=write))


def test_probabilities_are_allowed() -> None:
    check(Model(lambda z: z.softmax(1)))


def test_half_precision_logits_are_allowed() -> None:
    check(Model(lambda z: z.half()))


# check_set_up: classes


@pytest.mark.parametrize(
    ("attack", "needed", "part"),
    [
        ("autoattack", 4, "autoattack/apgd-t"),
        ("apgd-t", 4, "apgd-t"),
        ("autoattack-rand", 3, "autoattack-rand/apgd-dlr"),
        ("autoattack-reference", 4, "autoattack-reference/apgd-t"),
        ("audit(sample=3)", 4, r"audit\(sample=3\)/weakest/apgd-t"),
    ],
)
def test_a_suite_that_needs_more_classes_is_refused_and_says_which_part(
    attack: str, needed: int, part: str
) -> None:
    few, data = Model(classes=needed - 1), dataset_from_tensors(X, Y % 2)
    needs = Needs.of(parse_suite(["pgd-1", attack]))

    with pytest.raises(
        SatbenchError, match=rf"at least {needed} classes for {part}, got {needed - 1}: run attacks"
    ):
        check_set_up(few, data, LINF, needs)
    check_set_up(Model(classes=needed), data, LINF, needs)


def test_classes_masked_with_minus_infinity_are_allowed_and_counted() -> None:
    def masked(logits: Tensor) -> Tensor:
        return torch.cat([logits, logits.new_full((len(logits), 3), -torch.inf)], 1)

    learnt = check_set_up(Model(masked), USER, LINF)

    assert learnt.notes == ("3 of 13 classes are masked for every image",)


def test_masked_classes_do_not_count_for_a_suite_that_needs_some() -> None:
    def masked(logits: Tensor) -> Tensor:
        return logits.index_fill(1, torch.arange(3, 10), -torch.inf)

    with pytest.raises(SatbenchError, match=r"at least 4 classes for apgd-t, got 3"):
        check_set_up(Model(masked), USER, LINF, Needs.of(parse_suite(["apgd-t"])))


def test_a_class_masked_for_some_images_alone_is_refused() -> None:
    def masked(logits: Tensor) -> Tensor:
        return torch.where(logits < logits.mean(1, keepdim=True), -torch.inf, logits)

    with pytest.raises(SatbenchError, match=r"^expected finite logits, got -inf for \d\d of 32"):
        check(Model(masked))


# check_set_up: one image, and others beside it


def test_a_single_image_whose_batch_dimension_is_squeezed_away_is_answered() -> None:
    check(Model(lambda z: z.squeeze()))


def test_a_model_that_fails_on_a_single_image_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        SatbenchError,
        match=r"^the model works for many images, but not for one alone \(.*\): keep the batch",
    ):
        check(Model(before=lambda x: x.squeeze().flatten(1)))


def test_a_layer_that_cannot_take_a_single_image_is_named() -> None:
    model = nn.Sequential(Model(), nn.BatchNorm1d(10, track_running_stats=False))

    with pytest.raises(SatbenchError, match=r"not for one alone .*the layer '1' has no running"):
        check(model)


def test_a_first_layer_that_works_in_place_and_changes_nothing_is_allowed() -> None:
    check(Model(before=lambda x: x.clamp_(0, 1)))


def test_a_model_that_writes_into_its_input_only_without_gradients_is_refused() -> None:
    def write(x: Tensor) -> Tensor:
        return x if torch.is_grad_enabled() else x.mul_(0.5)

    with pytest.raises(SatbenchError, match=r"not to change its input, "):
        check(Model(before=write))


class Norm(Model):
    """A model with a batch-norm that has no statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats=False)

    def forward(self, x: Tensor) -> object:
        return super().forward(self.norm(x))


class Thawed(Norm):
    """A model whose batch-norm is always in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.norm.train()


def by_range(x: Tensor) -> Tensor:
    """Round to 8 bits of the range of the whole batch."""
    step = x.abs().amax() / 127
    return (x / step).round() * step


def dropped(x: Tensor) -> Tensor:
    return nn.functional.dropout(x - x.mean(0), 0.3, training=True)


@pytest.mark.parametrize(
    ("model", "cause"),
    [
        (Norm, "the layer 'norm' has no running statistics"),
        (Thawed, "the layer 'norm' is in train mode"),
        (lambda: Model(before=lambda x: x - x.mean(0)), "such as x - x.mean"),
        (lambda: Model(before=lambda x: x / x.std()), "such as x - x.mean"),
        (lambda: Model(before=by_range), "such as x - x.mean"),
        (lambda: Model(lambda z: z.softmax(0)), "such as x - x.mean"),
        (lambda: Model(lambda z: z * len(z)), "such as x - x.mean"),
        (lambda: Model(before=dropped), "such as x - x.mean"),
    ],
    ids=["norm", "thawed", "mean", "std", "quantised", "softmax", "size", "random too"],
)
def test_a_model_whose_answers_depend_on_the_batch_is_refused_with_the_cause(
    model: Callable[[], nn.Module], cause: str
) -> None:
    torch.manual_seed(0)
    with pytest.raises(
        SatbenchError,
        match=rf"^expected logits that do not depend on the rest of the batch.*{cause}.*;",
    ):
        check(model())


def with_itself(x: Tensor) -> Tensor:
    return torch.cat([one - one.mean() for one in x.split(1)])  # type: ignore[no-untyped-call]


def in_bfloat16(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (x.flatten(1) @ torch.ones(16, 16)).view_as(x).float()


GENERATOR_OF_ITS_OWN = torch.Generator()


@pytest.mark.parametrize(
    "before",
    [
        with_itself,
        in_bfloat16,
        lambda x: nn.functional.dropout(x, 0.3, training=True),
        lambda x: x + torch.rand(x.shape, generator=GENERATOR_OF_ITS_OWN),
        lambda x: x * np.random.random(),
        lambda x: (x - 0.5).sign(),
    ],
    ids=["itself", "bfloat16", "dropout", "own generator", "numpy", "hard"],
)
def test_a_coarse_or_random_model_is_not_mistaken_for_one_that_depends_on_the_batch(
    before: Callable[[Tensor], Tensor],
) -> None:
    check(Model(before=before))


def test_a_single_image_has_no_other_images_to_depend_on() -> None:
    check(Norm(), dataset_from_tensors(X[:1], Y[:1]))


# check_set_up: layers that nn.Module does not know


class Listed(nn.Module):
    """A model that keeps its layers in a list of Python."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 10)]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_hidden_layer_in_train_mode_is_refused_by_name_and_does_not_change() -> None:
    model = Listed()
    before = [tensor.clone() for tensor in model.layers[0].state_dict().values()]

    with pytest.raises(
        SatbenchError, match=r"got layers\[0\], layers\[2\], which nn.Module does not know: "
    ):
        check(model)
    after = list(model.layers[0].state_dict().values())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_hidden_layers_in_eval_mode_are_named_and_their_parameters_counted() -> None:
    model = Listed()
    for layer in model.layers:
        layer.eval()

    learnt = check_set_up(model, USER, LINF)

    assert learnt.parameters == 2 + 16 * 10 + 10
    assert ["layers[0], layers[2]" in note for note in learnt.notes] == [True]


def test_parameters_in_a_list_are_named_and_counted_where_they_are_used() -> None:
    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = [nn.Parameter(torch.ones(16, 10))]
            self.averages = {"weights": nn.Parameter(torch.ones(16, 10))}

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.weights[0]

    learnt = check_set_up(Loose(), USER, LINF)

    assert learnt.parameters == 16 * 10
    assert ["weights[0]" in note for note in learnt.notes] == [True]


# check_module


def test_weights_made_under_inference_mode_are_refused_with_the_remedy() -> None:
    with torch.inference_mode():
        model = Model()

    with pytest.raises(SatbenchError, match=r"autograd can use, got net\.1\.weight, .*deepcopy"):
        check_module(model)
    check(copy.deepcopy(model))


def test_an_exported_program_is_refused_with_the_remedy() -> None:
    program = object.__new__(torch.export.ExportedProgram)  # torch.export() takes a second

    with pytest.raises(SatbenchError, match=r"got ExportedProgram: pass model\.module\(\)$"):
        check_module(program)


# check_set_up: the gradient

NO_GRADIENT = r"^no gradient reaches the pixels \(.+\), so white-box attacks would find nothing"


class Stuck(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        raise NotImplementedError("no backward for this layer")


def test_a_model_without_gradient_is_accepted_where_no_attack_follows_gradients() -> None:
    check_set_up(Model(lambda z: z.detach()), USER, LINF, Needs(gradients=False))


def test_a_model_whose_gradient_is_not_finite_is_refused() -> None:
    # The derivative of the square root of 0 is infinite, and infinity times 0 is NaN.
    model = Model(lambda z: z + (z * 0).abs().sqrt())

    with pytest.raises(SatbenchError, match="expected finite gradients, got NaN or infinity"):
        check(model)


def test_detached_logits_are_refused_with_the_remedies() -> None:
    with pytest.raises(
        SatbenchError, match=NO_GRADIENT + r".*\(BPDA\), or attack only with square$"
    ):
        check(Model(lambda z: z.detach()))


def test_detached_pixels_are_refused() -> None:
    with pytest.raises(SatbenchError, match=NO_GRADIENT):
        check(Model(before=lambda x: x.detach()))


def test_pixels_detached_before_unregistered_weights_are_refused() -> None:
    scale = torch.ones(1, requires_grad=True)
    with pytest.raises(SatbenchError, match=NO_GRADIENT):
        check(Model(lambda z: z.detach() * scale))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_forward_without_gradients_inside_is_refused(mode: Callable[[], Any]) -> None:
    class Closed(Model):
        def forward(self, x: Tensor) -> object:
            with mode():
                return super().forward(x)

    with pytest.raises(SatbenchError, match=NO_GRADIENT):
        check(Closed())


def test_a_layer_without_backward_is_refused_with_its_own_error() -> None:
    with pytest.raises(SatbenchError, match=r"\(NotImplementedError: no backward for this layer\)"):
        check(Model(before=lambda x: Stuck.apply(x)))


def test_a_gradient_of_zero_is_left_to_the_diagnosis() -> None:
    check(Model(before=lambda x: x.round()))


def test_checking_works_under_no_grad() -> None:
    with torch.no_grad():
        check(Model())
        still = torch.is_grad_enabled()

    assert not still


def test_checking_under_inference_mode_is_refused() -> None:
    model = Model()
    with (
        torch.inference_mode(),
        pytest.raises(SatbenchError, match=r"^expected to run outside torch\.inference_mode\(\)"),
    ):
        check(model)


def test_checking_ignores_the_callers_autocast() -> None:
    seen = []
    model = Model(lambda z: seen.append(z.dtype) or z)  # type: ignore[func-returns-value]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        check(model)

    assert set(seen) == {torch.float32}


# check_set_up: cost and traces


def test_the_model_is_asked_about_a_few_images_together_in_groups_and_one_by_one() -> None:
    seen: list[int] = []
    check(Model(lambda z: seen.append(len(z)) or z))  # type: ignore[func-returns-value]

    assert Counter({ASKED: 1, MOST: 1, 1: 2}) + Counter({GROUP: 2 * MOST // GROUP}) == Counter(seen)


@pytest.mark.parametrize("size", [1, GROUP])
def test_a_model_that_answers_batches_of_one_size_otherwise_is_refused(size: int) -> None:
    with pytest.raises(SatbenchError, match="in another batch"):
        check(Model(lambda z: z.flip(1) if len(z) == size else z))


@pytest.mark.parametrize(("batch_size", "most"), [(1, 4), (8, 8), (250, ASKED)])
def test_the_model_is_asked_about_no_more_images_at_once_than_it_will_be(
    batch_size: int, most: int
) -> None:
    seen: list[int] = []
    model = Model(lambda z: seen.append(len(z)) or z)  # type: ignore[func-returns-value]
    check_set_up(model, USER, LINF, batch_size=batch_size)

    assert max(seen) == most


def test_a_set_smaller_than_that_is_asked_about_whole() -> None:
    check(Model(), dataset_from_tensors(X[:1], Y[:1]))


def rich_model() -> nn.Module:
    """A model in train mode, with batch norm, dropout, hooks, grads and a frozen parameter."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[5].weight.grad = torch.ones(10, 16)
    model.register_forward_hook(lambda *_: None)
    model[2].register_forward_pre_hook(lambda *_: None)
    model[5].register_full_backward_hook(lambda *_: None)
    return model


def traces(model: nn.Module) -> dict[str, object]:
    """Return everything that must be restored: values, identities, modes, hooks."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        "values": {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()},
        "tensors": [id(tensor) for tensor in (*model.parameters(), *model.buffers())],
        "modes": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grads": [id(p.grad) if p.grad is not None else None for p in model.parameters()],
        "grad values": [p.grad.sum().item() for p in model.parameters() if p.grad is not None],
        "hooks": [dict(getattr(module, name)) for module in model.modules() for name in hooks],
    }


def test_a_model_comes_back_untouched() -> None:
    model = rich_model()
    before = traces(model)
    check(model)

    assert traces(model) == before


def test_a_refused_model_comes_back_untouched() -> None:
    model = rich_model()
    before = traces(model)
    with pytest.raises(SatbenchError, match="wrong number of classes"):
        check(model, replace(NAMED, classes=12))

    assert traces(model) == before


def test_the_dataset_comes_back_untouched() -> None:
    before = USER.images.copy()
    with pytest.raises(SatbenchError, match="not to change its input"):
        check(Model(before=lambda x: x.sub_(0.5)))

    np.testing.assert_array_equal(USER.images, before)
