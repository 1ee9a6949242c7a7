"""Specification of a training: complete, in plain values."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Self

from analog_samson.data import AUGMENTATIONS, check_name, short_name
from analog_samson.importing import is_import_name
from analog_samson.methods import EXTERNAL, Method, Option, method_of
from analog_samson.models import Packing, check_output
from analog_samson.perturbation import SCHEDULES

AIHWKIT_TWIN = "analog_samson.analog.from_aihwkit:twin"
"""Model of networks that were imported from aihwkit; its option "factory" names the user's code."""

OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "bfloat16")
PARAMETRISATIONS = ("none", "microring")

FLAT_OPTIONS: Mapping[str, Any] = MappingProxyType(
    {
        "rho": float | None,
        "sigma": float | None,
        "trajectory_weight": float | None,
        "eta": float | None,
        "p": float | None,
        "dialect": str | None,
        "perturb_norm_and_bias": bool | None,
        "noise_scale": str | None,
        "device": str | None,
        "device_time_s": float | None,
        "drop_share": float | None,
        "fisher_decay": float | None,
        "temperature": float | None,
        "trajectory_start": float | None,
        "trajectory_lag": int | None,
        "teacher_decay": float | None,
    }
)
"""Options that are top-level keys in JSON (null if a method does not use them), with their types;
every other option is under "options". Must not be changed: digests contain these keys."""


@dataclass(frozen=True, init=False)
class TrainingSpec:
    """Everything that determines the result of a training.

    Strength and options of the method are given as keyword arguments and read as attributes:

    >>> spec = TrainingSpec(method="samson", rho=0.5, p=2, epochs=10)
    >>> spec.rho, spec.p
    (0.5, 2.0)

    An option that is not given gets the method's default, which is written to the specification, so
    that a checkpoint does not depend on defaults that may change.

    Attributes:
        dataset: Name for `load_dataset`. Checkpoints hold the stored name of your own data: last
            name of the path, options, and a digest of the contents.
        model: Name for `build_model`, or "package.module:function".
        model_kwargs: Keyword arguments of the model, in JSON's types.
        method: A name from `METHODS`, the import name of a `Method` ("package.module:name"), or
            "external" for a network trained elsewhere.
        options: Strength and options of the method by name:

            - rho: Radius of the adversarial perturbation (sam, asam, samson).
            - sigma: Size of the random perturbation, relative to `noise_scale` (rwp, arwp,
              noise_injection) or to the noise of the device (hardware_aware).
            - trajectory_weight: Weight of the trajectory loss (saf, mesa).
            - eta: Added to |w| (asam, samson); strength of the adaptation (arwp).
            - p: Norm that a layer's weights are divided by, 2 or inf (samson).
            - dialect: Which of the two public forms of ASAM, a name from `DIALECTS`.
            - perturb_norm_and_bias: Whether samson also perturbs normalisation and bias parameters.
            - noise_scale: What `sigma` is relative to, a name from `NOISE_SCALES`.
            - device: Name or path of the device whose noise is used in training (hardware_aware).
            - device_time_s: Time of the read of that device after programming [s]; None: 0, or the
              first time for which it has data. Weights are drifted and compensated as on its chips.
            - drop_share: Probability that a weight is zero in a pass (rwp, noise_injection,
              hardware_aware).
            - fisher_decay: Decay of the sum of squared gradients (arwp).
            - temperature: Temperature of the trajectory loss.
            - trajectory_start: Share of the epochs without the trajectory loss at the beginning.
            - trajectory_lag: Epochs between the stored outputs and the present (saf).
            - teacher_decay: Decay of the moving average that is the teacher (mesa). The authors'
              value averages over 2000 steps; for a training of a few thousand steps use 0.99.

        schedule: How the strength grows over the training, a name from `SCHEDULES`.
        ramp_share: Share of the training in which it grows; then it is constant. Rasch et al.
            (2023) ramp noise_injection with schedule "linear" over the first epochs.
        clip_weights: Weights are clipped to this many standard deviations of their layer after
            each step; 0 does not clip. Usable with every method; None: the method's own.
        perturbed_share: Share of the perturbed gradient in the update; the rest is the clean one.
        m_sharpness: Images that share one perturbation; None: the whole batch.
        epochs: Passes over the training split.
        lr: Largest learning rate; it falls to 0 along half a cosine.
        warmup_share: Share of the training in which the learning rate first rises linearly, from
            lr / steps of that share to lr; 0: it is `lr` at the first step.
        momentum: Momentum of SGD.
        weight_decay: Weight decay, as the optimizer defines it.
        decay_norm_and_bias: Whether it also acts on normalisation and bias parameters.
        batch_size: Images per step; an incomplete last batch of an epoch is not used.
        accumulation: Number of equal parts in which a batch is processed.
        optimizer: A name from `OPTIMIZERS`.
        clip_gradients: Largest norm of the update gradient; 0 does not clip.
        label_smoothing: Share of the target that is distributed over all classes.
        average_decay: Decay of a moving average of the weights, which is then saved in the
            checkpoint; 0: no average.
        reestimate_batch_norm: Whether the statistics of batch normalisation are recomputed at the
            final weights; None: if the method has no clean pass, or weights are averaged.
        augmentation: A name from `data.AUGMENTATIONS`.
        validation_fraction: Share of the training images that is held out.
        parametrisation: "microring": train the control parameters of micro-ring weights.
        keep_digital: Layers that are not mapped onto arrays.
        rewrites: Importable names of rules that rewrite layers of other kinds into layers that can
            be mapped, "package.module:name"; see `models.rewriting`.
        output: Which output of the network counts where it gives several: an index, or a name.
        inputs: {argument of forward: shape of one sample} of a network of several inputs, such as
            {"image": "3x32x32", "speed": "5"}, kept as pairs; a sample of the data set holds their
            numbers in a row, in this order. Empty: the network takes one input.
        precision: "bfloat16": forward and backward pass under autocast.
        channels_last: Whether convolutions use the channels-last layout, which is faster on CPUs.
        compile: Whether forward and backward pass use `torch.compile`.
        accelerator: "cpu" or "cuda".
        threads: CPU threads; sums differ in the last bits between numbers of threads.
        start_from: Path of the checkpoint that training starts from.
        seed: Seed of initialisation, order, augmentation, dropout and perturbation.
    """

    dataset: str = "digits"
    model: str = "mlp"
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    method: str = "sgd"
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = "constant"
    ramp_share: float = 1.0
    clip_weights: float | None = None
    perturbed_share: float = 1.0
    m_sharpness: int | None = None
    epochs: int = 20
    lr: float = 0.1
    warmup_share: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_norm_and_bias: bool = False
    batch_size: int = 128
    accumulation: int = 1
    optimizer: str = "sgd"
    clip_gradients: float = 0.0
    label_smoothing: float = 0.0
    average_decay: float = 0.0
    reestimate_batch_norm: bool | None = None
    augmentation: str = "none"
    validation_fraction: float = 0.1
    parametrisation: str = "none"
    keep_digital: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = ()
    output: int | str | None = None
    inputs: tuple[tuple[str, str], ...] = ()
    precision: str = "float32"
    channels_last: bool = True
    compile: bool = False
    accelerator: str = "cpu"
    threads: int = 1
    start_from: str | None = None
    seed: int = 0

    def __init__(self, **values: Any) -> None:
        """Fill in the method's own values and refuse what cannot be trained.

        Args:
            **values: Fields, and strength and options of the method.

        Raises:
            ValueError: If a name is unknown, a number out of range, a strength missing, or an
                option given that the method does not read.
        """
        given = {**values.pop("options", {}), **values}
        for f in fields(self):
            default = {} if f.default is MISSING else f.default
            value = given.pop(f.name, default)
            if f.type in (float, float | None) and type(value) is int:
                value = float(value)  # 1 and 1.0 are one specification, so they must be one text
            object.__setattr__(self, f.name, value)
        object.__setattr__(self, "dataset", str(self.dataset))
        check_name(self.dataset)
        object.__setattr__(self, "keep_digital", tuple(self.keep_digital))
        self._check_rewrites()
        check_output(self.output)
        object.__setattr__(self, "inputs", Packing.read(self.inputs).written())
        self._set_options(given)
        self._check_names()
        self._check_method()
        self._check_numbers()
        self._check_model_kwargs()

    def __getattr__(self, name: str) -> Any:
        """An option of the method.

        Raises:
            AttributeError: If the method has no such option.
        """
        options = self.__dict__.get("options", {})
        if name in options:
            return options[name]
        raise AttributeError(
            f"A specification of method {self.__dict__.get('method')!r} has no {name!r}; its "
            f"options are {', '.join(options) or 'none'}."
        )

    @property
    def entry(self) -> Method:
        """The method's entry: its options, label and kind of step."""
        return method_of(self.method)

    @property
    def packing(self) -> Packing | None:
        """How the network takes several inputs; None if it takes one."""
        return Packing.read(self.inputs) if self.inputs else None

    @property
    def has_clean_pass(self) -> bool:
        """Whether a step includes a pass with unperturbed weights."""
        return self.entry.step != "one pass" or self.perturbed_share != 1.0

    @property
    def full_strength(self) -> float:
        """The strength that the schedule scales; 0 for a method without one."""
        name = self.entry.strength
        return float(self.options[name]) if name else 0.0

    @property
    def gradient_evaluations(self) -> int:
        """Backward passes over a batch in one step; 0 for a network trained elsewhere."""
        if self.method == EXTERNAL:
            return 0
        has_clean_pass_too = self.entry.step == "one pass" and self.has_clean_pass
        return self.entry.gradient_evaluations + int(has_clean_pass_too)

    @property
    def strength(self) -> str:
        """Short text that distinguishes trainings with the same method, such as "rho=0.5"."""
        return " ".join([*self._settings(), *(["fine-tuned"] if self.start_from else [])])

    def _settings(self) -> list[str]:
        """Strength and settings in which trainings with the same method differ."""
        if self.method == EXTERNAL:
            return []
        method = self.entry
        text = [f"{method.strength}={self.full_strength:g}"] if method.strength else []
        for name, option in method.options.items():
            value = getattr(self, name)
            if value != option.default:
                text.append(option.text.format(value) or f"{name}={_short(value)}")
        if "clip_weights" not in method.options and self.clip_weights:
            text.append(f"clip_weights={self.clip_weights:g}")
        if self.schedule != "constant":
            text.append(self.schedule)
        if self.ramp_share != 1.0:
            text.append(f"ramp={self.ramp_share:g}")
        if self.perturbed_share != 1.0:
            text.append(f"share={self.perturbed_share:g}")
        if self.m_sharpness is not None:
            text.append(f"m={self.m_sharpness}")
        if self.parametrisation != "none":
            text.append(self.parametrisation)
        return text

    @property
    def file_stem(self) -> str:
        """Name of the checkpoint without its ending: dataset, model, method, strength, seed."""
        parts = [short_name(self.dataset), self.model, self.method]
        parts.append(",".join(self._settings()).replace(" ", ","))
        if self.start_from is not None:
            parts.append("finetuned")
        parts.append(f"seed{self.seed}")
        return "-".join(re.sub(r"[^\w.=,+-]", "_", part) for part in parts if part)

    def to_json(self) -> str:
        """The specification as one JSON object with sorted keys; infinity is the text "inf"."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "options"}
        options = {name: "inf" if v == math.inf else v for name, v in self.options.items()}
        values |= {name: options.pop(name, None) for name in FLAT_OPTIONS}
        if options:
            values["options"] = options
        for name in ("rewrites", "output", "inputs", "warmup_share"):  # written only if used
            if not values[name] and (name != "output" or values[name] is None):
                del values[name]
        return json.dumps(values, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If the text is no JSON object, or has a key that is unknown to this version.
        """
        return cls(**json.loads(text))

    def _set_options(self, given: Mapping[str, Any]) -> None:
        method = self.entry
        own = {name: option for name, option in method.options.items() if name != "clip_weights"}
        if method.strength:
            own = {method.strength: Option(None, least=0.0, kind=float)} | own
        names = [f.name for f in fields(self)]
        taken = [name for name in own if name in names or hasattr(type(self), name)]
        if taken:
            raise ValueError(
                f"Method {self.method!r} calls its strength or an option {taken[0]!r}, which is an "
                "attribute of every specification; give it another name."
            )
        for name, value in given.items():
            _check_choice(name, [*names, *own, *FLAT_OPTIONS], "training specification key")
            if name not in own and value is not None:
                raise ValueError(
                    f"Method {self.method!r} does not read {name} (given {value!r}); it reads "
                    f"{listed(own) or 'no options'}; leave it out."
                )
        if method.strength and given.get(method.strength) is None:
            raise ValueError(
                f"Method {self.method!r} needs its strength {method.strength}, a number of at "
                f"least 0; give {method.strength}=..."
            )
        options = {name: option.checked(name, given.get(name)) for name, option in own.items()}
        object.__setattr__(self, "options", options)
        if self.clip_weights is None:
            clip = method.options.get("clip_weights", Option(0.0))
            object.__setattr__(self, "clip_weights", clip.default)

    def _check_rewrites(self) -> None:
        names = self.rewrites
        is_listed = isinstance(names, tuple | list)
        if not is_listed or not all(isinstance(n, str) and is_import_name(n) for n in names):
            raise ValueError(
                "rewrites is a list of importable names of rules, 'package.module:name'; got "
                f"{names!r}."
            )
        object.__setattr__(self, "rewrites", tuple(names))

    def _check_names(self) -> None:
        _check_choice(self.schedule, SCHEDULES, "schedule")
        _check_choice(self.optimizer, OPTIMIZERS, "optimizer")
        _check_choice(self.augmentation, AUGMENTATIONS, "augmentation")
        _check_choice(self.precision, PRECISIONS, "precision")
        _check_choice(self.parametrisation, PARAMETRISATIONS, "parametrisation")
        _check_choice(self.accelerator, ("cpu", "cuda"), "accelerator")

    def _check_method(self) -> None:
        method = self.entry
        if self.parametrisation != "none" and method.trains_weights:
            raise ValueError(
                f"Method {self.method!r} acts on weights, and with parametrisation="
                f"{self.parametrisation!r} there are only control parameters; give "
                'parametrisation="none".'
            )
        if self.parametrisation != "none" and self.clip_weights:
            raise ValueError(
                f"clip_weights (given {self.clip_weights!r}) clips weights, and with "
                f"parametrisation={self.parametrisation!r} there are only control parameters; "
                "give clip_weights=0."
            )
        if not method.perturbs_weights and (
            self.perturbed_share != 1.0 or self.m_sharpness is not None
        ):
            raise ValueError(
                f"Method {self.method!r} perturbs no weights, so perturbed_share (given "
                f"{self.perturbed_share!r}) and m_sharpness (given {self.m_sharpness!r}) have no "
                "meaning; leave them out."
            )
        if self.reestimate_batch_norm is None:
            is_needed = not self.has_clean_pass or self.average_decay > 0
            object.__setattr__(self, "reestimate_batch_norm", is_needed)

    def _check_numbers(self) -> None:
        for name in ("weight_decay", "lr", "clip_weights", "clip_gradients"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and at least 0; got {value!r}.")
        for name in ("momentum", "label_smoothing", "average_decay", "warmup_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1); got {getattr(self, name)!r}.")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                "validation_fraction must lie between 0 and 1, both excluded; got "
                f"{self.validation_fraction!r}."
            )
        if not 0 <= self.perturbed_share <= 1:
            raise ValueError(f"perturbed_share must lie in [0, 1]; got {self.perturbed_share!r}.")
        for name, least in (
            ("epochs", 0),
            ("batch_size", 1),
            ("accumulation", 1),
            ("threads", 1),
            ("seed", 0),
        ):
            _check_whole_number(name, getattr(self, name), least)
        if not 0 < self.ramp_share <= 1:
            raise ValueError(f"ramp_share must lie in (0, 1]; got {self.ramp_share!r}.")
        part = self.batch_size
        if self.m_sharpness is not None:
            _check_whole_number("m_sharpness", self.m_sharpness, 1)
            part = self.m_sharpness
            if self.batch_size % part:
                raise ValueError(
                    f"batch_size must be a multiple of m_sharpness; got {self.batch_size} and "
                    f"{part}; choose a part that divides the batch."
                )
        if part % self.accumulation:
            raise ValueError(
                f"accumulation must divide the {part} images that are perturbed together; got "
                f"{self.accumulation}."
            )

    def _check_model_kwargs(self) -> None:
        try:
            copied = json.loads(json.dumps(dict(self.model_kwargs), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"model_kwargs must hold only what JSON can ({error}); got {self.model_kwargs!r}."
            ) from error
        object.__setattr__(self, "model_kwargs", copied)


def _check_choice(value: str, allowed: Iterable[str], what: str) -> None:
    names = list(allowed)
    if value in names:
        return
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f" did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"Unknown {what} {value!r};{hint} allowed: {', '.join(names)}.")


def _check_whole_number(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value!r}.")


def listed(names: Iterable[str], most: int = 4) -> str:
    """The first few of some names, for a message."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
