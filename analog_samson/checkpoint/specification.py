"""How a network is trained: one complete specification in plain values."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from analog_samson.checkpoint.methods import (
    EXTERNAL,
    METHOD_OPTIONS,
    METHODS,
    STRENGTHS,
    Method,
)
from analog_samson.data import AUGMENTATIONS
from analog_samson.perturbation import DIALECTS, NOISE_SCALES, SCHEDULES

OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "bfloat16")
PARAMETRISATIONS = ("none", "microring")


@dataclass(frozen=True)
class TrainingSpec:
    """Everything that decides which weights a training ends at.

    A field that only some methods read (`eta`, `p`, `noise_scale`, ...) is None for the others and
    takes the method's published value where it is None; the value is then in the specification, so
    that a checkpoint never depends on a default that may change.

    Attributes:
        dataset: Name for `load_dataset`.
        model: Name for `build_model`, or "package.module:function".
        model_kwargs: Keyword arguments of the model, in JSON's types.
        method: A name from `METHODS`, or "external" for a network trained elsewhere.
        rho: Radius of the adversarial perturbation (sam, asam, samson).
        sigma: Size of the random perturbation, relative to `noise_scale` (rwp, arwp,
            noise_injection) or to the noise of the device (hardware_aware).
        trajectory_weight: Weight of the trajectory loss (saf, mesa).
        schedule: How the strength grows over the training, a name from `SCHEDULES`.
        ramp_share: Share of the training in which it does so; it then stays. Rasch et al. (2023)
            ramp noise_injection with schedule "linear" over the first epochs.
        eta: Added to |w| (asam, samson); strength of the adaptation (arwp).
        p: Norm that a layer's weights are divided by, 2 or inf (samson).
        dialect: Which of the two public forms of ASAM, a name from `DIALECTS`.
        perturb_norm_and_bias: Whether samson also perturbs normalisation and bias parameters.
        noise_scale: What `sigma` is relative to, a name from `NOISE_SCALES`.
        device: Name or path of the device whose noise is trained with (hardware_aware).
        device_time_s: When that device is read after programming [s]; None: at once, or at the
            first time that it has data for.
        drop_share: Probability that a weight is zero in a pass (rwp, noise_injection,
            hardware_aware).
        fisher_decay: Decay of the squared gradients that arwp remembers.
        clip_weights: Weights are clipped to this many standard deviations of their layer after
            each step; 0 does not clip. Usable with every method.
        temperature: Temperature of the trajectory loss.
        trajectory_start: Share of the epochs that pass before the trajectory loss begins.
        trajectory_lag: Epochs between the remembered outputs and now (saf).
        teacher_decay: Decay of the moving average that is the teacher (mesa). The authors' value
            remembers 2000 steps: in a training of a few thousand the teacher stays behind and pulls
            the network down (LeNet-5, 5 epochs of MNIST: 93 %); with 0.99 it does not (98.9 %).
        perturbed_share: Share of the perturbed gradient in the update; the rest is the clean one.
        m_sharpness: Images that share one perturbation; None: the whole batch.
        epochs: Passes over the training split.
        lr: Learning rate at the first step; it falls to 0 along half a cosine.
        momentum: Momentum of SGD.
        weight_decay: Weight decay, as the optimizer defines it.
        decay_norm_and_bias: Whether it also acts on normalisation and bias parameters.
        batch_size: Images per step; the images that do not fill a batch are left out of an epoch.
        accumulation: Equal parts that a batch is sent through the network in.
        optimizer: A name from `OPTIMIZERS`.
        clip_gradients: Largest norm of the update gradient; 0 does not clip.
        label_smoothing: Share of the target that is spread over all classes.
        average_decay: Decay of a moving average of the weights, which the checkpoint then holds;
            0: no average.
        reestimate_batch_norm: Whether the statistics of batch normalisation are estimated anew at
            the final weights; None: where the method has no clean pass, or weights are averaged.
        augmentation: A name from `data.AUGMENTATIONS`.
        validation_fraction: Share of the training images that is held out.
        parametrisation: "microring": trained are the control parameters of micro-ring weights.
        keep_digital: Layers that will not become tiles.
        precision: "bfloat16": forward and backward under autocast.
        channels_last: Memory format of the convolutions; on CPUs the faster one.
        compile: Whether the forward and backward go through `torch.compile`.
        accelerator: "cpu" or "cuda".
        threads: CPU threads; sums differ in their last bits from one number to another.
        start_from: Path of the checkpoint that training starts from.
        seed: Seed of initialisation, order, augmentation, dropout and perturbation.
    """

    dataset: str = "digits"
    model: str = "mlp"
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    method: str = "sgd"
    rho: float | None = None
    sigma: float | None = None
    trajectory_weight: float | None = None
    schedule: str = "constant"
    ramp_share: float = 1.0
    eta: float | None = None
    p: float | None = None
    dialect: str | None = None
    perturb_norm_and_bias: bool | None = None
    noise_scale: str | None = None
    device: str | None = None
    device_time_s: float | None = None
    drop_share: float | None = None
    fisher_decay: float | None = None
    clip_weights: float | None = None
    temperature: float | None = None
    trajectory_start: float | None = None
    trajectory_lag: int | None = None
    teacher_decay: float | None = None
    perturbed_share: float = 1.0
    m_sharpness: int | None = None
    epochs: int = 20
    lr: float = 0.1
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
    precision: str = "float32"
    channels_last: bool = True
    compile: bool = False
    accelerator: str = "cpu"
    threads: int = 1
    start_from: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Fill in the method's own values and refuse what cannot be trained.

        Raises:
            ValueError: If a name is unknown, a number out of range, a strength missing, or a field
                given that the method does not read.
        """
        object.__setattr__(self, "keep_digital", tuple(self.keep_digital))
        for f in fields(self):  # 1 and 1.0 are one specification, so they must be one text
            value = getattr(self, f.name)
            if f.type in (float, float | None) and type(value) is int:
                object.__setattr__(self, f.name, float(value))
        self._check_names()
        self._check_method()
        self._check_numbers()
        self._check_model_kwargs()

    @property
    def gradient_evaluations(self) -> int:
        """Backward passes over a batch in one step; 0 for a network trained elsewhere."""
        if self.method == EXTERNAL:
            return 0
        has_clean_pass_too = METHODS[self.method].strength == "sigma" and self.perturbed_share != 1
        return METHODS[self.method].gradient_evaluations + int(has_clean_pass_too)

    @property
    def strength(self) -> str:
        """Short text that tells apart what was trained with one method, such as "rho=0.5"."""
        if self.method == EXTERNAL:
            return ""
        method = METHODS[self.method]
        names = [method.strength] if method.strength else []
        names += [name for name, usual in method.options.items() if getattr(self, name) != usual]
        text = [f"{name}={_short(getattr(self, name))}" for name in names]
        if self.device_time_s is not None:
            text.append(f"t={self.device_time_s:g}s")
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
        return " ".join(text)

    @property
    def file_stem(self) -> str:
        """Name of the checkpoint without its ending: dataset, model, method, strength, seed."""
        parts = [self.dataset, self.model, self.method, self.strength.replace(" ", ",")]
        if self.start_from is not None:
            parts.append("finetuned")
        parts.append(f"seed{self.seed}")
        return "-".join(re.sub(r"[^\w.=,+-]", "_", part) for part in parts if part)

    def to_json(self) -> str:
        """The specification as one JSON object with sorted keys; infinity is the text "inf"."""
        values = asdict(self)
        values["model_kwargs"] = dict(self.model_kwargs)
        if self.p == math.inf:
            values["p"] = "inf"
        return json.dumps(values, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ValueError: If the text is no JSON object, or has a key that this version does not know.
        """
        values = json.loads(text)
        known = [f.name for f in fields(cls)]
        for key in values:
            _check_choice(key, known, "training specification key")
        if values.get("p") == "inf":
            values["p"] = math.inf
        return cls(**values)

    def _check_names(self) -> None:
        _check_choice(self.method, [*METHODS, EXTERNAL], "method")
        _check_choice(self.schedule, SCHEDULES, "schedule")
        _check_choice(self.optimizer, OPTIMIZERS, "optimizer")
        _check_choice(self.augmentation, AUGMENTATIONS, "augmentation")
        _check_choice(self.precision, PRECISIONS, "precision")
        _check_choice(self.parametrisation, PARAMETRISATIONS, "parametrisation")
        _check_choice(self.accelerator, ("cpu", "cuda"), "accelerator")
        if self.dialect is not None:
            _check_choice(self.dialect, DIALECTS, "dialect")
        if self.noise_scale is not None:
            _check_choice(self.noise_scale, NOISE_SCALES, "noise_scale")

    def _check_method(self) -> None:
        method = METHODS.get(self.method, Method("", "", {}, 0))
        for name in STRENGTHS:
            value = getattr(self, name)
            if name == method.strength and value is None:
                raise ValueError(
                    f"Method {self.method!r} needs its strength {name}, a number of at least 0; "
                    f"give {name}=..."
                )
            if name != method.strength and value is not None:
                uses = f"uses {method.strength}" if method.strength else "has no strength"
                raise ValueError(
                    f"Method {self.method!r} does not read {name} (given {value!r}): it {uses}; "
                    "leave it out."
                )
        for name in METHOD_OPTIONS:
            value = getattr(self, name)
            if name in method.options:
                if value is None:
                    object.__setattr__(self, name, method.options[name])
            elif name == "clip_weights":
                object.__setattr__(self, name, 0.0 if value is None else value)
            elif value is not None:
                raise ValueError(
                    f"Method {self.method!r} does not read {name} (given {value!r}); it reads "
                    f"{listed(method.options) or 'no options'}; leave it out."
                )
        if self.parametrisation != "none" and self.device is not None:
            raise ValueError(
                f"Method {self.method!r} puts a device's noise on weights, and with "
                f"parametrisation={self.parametrisation!r} there are only control parameters; "
                'give parametrisation="none".'
            )
        if self.parametrisation != "none" and self.clip_weights:
            raise ValueError(
                f"clip_weights (given {self.clip_weights!r}) clips weights, and with "
                f"parametrisation={self.parametrisation!r} there are only control parameters; "
                "give clip_weights=0."
            )
        if self.device_time_s is not None and "device" not in method.options:
            raise ValueError(
                f"Method {self.method!r} does not read device_time_s (given "
                f"{self.device_time_s!r}); leave it out."
            )
        is_rule = method.strength in ("rho", "sigma")
        if not is_rule and (self.perturbed_share != 1.0 or self.m_sharpness is not None):
            raise ValueError(
                f"Method {self.method!r} perturbs no weights, so perturbed_share (given "
                f"{self.perturbed_share!r}) and m_sharpness (given {self.m_sharpness!r}) have no "
                "meaning; leave them out."
            )
        if self.reestimate_batch_norm is None:
            has_clean_pass = method.strength != "sigma" or self.perturbed_share != 1.0
            object.__setattr__(
                self, "reestimate_batch_norm", not has_clean_pass or self.average_decay > 0
            )

    def _check_numbers(self) -> None:
        at_least_0 = "finite and at least 0"
        for name in (
            *STRENGTHS,
            "eta",
            "device_time_s",
            "weight_decay",
            "lr",
            "clip_weights",
            "clip_gradients",
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be {at_least_0}; got {value!r}.")
        for name in ("momentum", "label_smoothing", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1); got {getattr(self, name)!r}.")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                "validation_fraction must lie between 0 and 1, both excluded; got "
                f"{self.validation_fraction!r}."
            )
        for name in (
            "drop_share",
            "fisher_decay",
            "teacher_decay",
            "trajectory_start",
            "perturbed_share",
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1]; got {value!r}.")
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
        if self.p is not None and self.p not in (2, math.inf):
            raise ValueError(f"p must be 2 or inf; got {self.p!r}.")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be finite and above 0; got {self.temperature!r}.")
        if self.trajectory_lag is not None:
            _check_whole_number("trajectory_lag", self.trajectory_lag, 1)
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
