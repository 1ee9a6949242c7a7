"""Training methods: rule or loss, options, label, style and citation of each.

An entry defines a method for the whole package; its rule or loss is imported when a training
begins, so that this module does not import torch. A method of another package is an entry in a
module of that package, referred to as "package.module:name":

    # my_package/tilted.py
    def tilted_ascent(weights, gradients, *, radius, tilt): ...

    tilted = Method(
        summary="Ascent with a tilt.",
        label="Tilted SAM",
        step="two passes",
        build="my_package.tilted:tilted_ascent",
        strength="radius",
        options={"tilt": Option(1.0, least=0.0)},
        citation="@article{lee2026, ...}",
    )

    TrainingSpec(method="my_package.tilted:tilted", radius=0.1)
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

from analog_samson.importing import import_named, is_import_name

Step = Literal["plain", "two passes", "one pass", "loss"]

EXTERNAL = "external"
"""Method of imported networks."""

DIALECTS = ("authors", "popular")
NOISE_SCALES = ("filter_max", "layer_max", "network_max", "filter_norm", "constant")


_MARKERS = tuple("osD^v<>PXhpd*H8")


@dataclass(frozen=True)
class Option:
    """An option of a method: its default, and the values that it may take.

    Attributes:
        default: Default value; values must have its type.
        least: Smallest number allowed.
        most: Largest number allowed. Without it numbers must be finite.
        above: Numbers must be larger than this.
        allowed: If given, the only values allowed.
        kind: Type of the values, where the default is None.
        argument: Name of the argument of the rule or loss, if it differs from the option's.
        text: Format of the option in the description of a training; empty: "name=value".

    Example:
        >>> eta = Option(default=0.01, least=0.0)
        >>> eta.checked("eta", 1), eta.checked("eta", None)
        (1.0, 0.01)
    """

    default: Any
    least: float | None = None
    most: float | None = None
    above: float | None = None
    allowed: tuple[Any, ...] = ()
    kind: type[Any] | None = None
    argument: str = ""
    text: str = ""

    def checked(self, name: str, value: Any) -> Any:
        """Return a value of this option, in its type.

        Args:
            name: Name of the option, for messages.
            value: The given value; None gives the default. "inf" is a number, as in JSON.

        Raises:
            ValueError: If the value has another type or is out of range.
        """
        if value is None:
            return self.default
        kind: type[Any] = self.kind or type(self.default)
        if kind is float:
            value = math.inf if value == "inf" else value
            value = float(value) if type(value) is int else value
        if self.allowed:
            if value not in self.allowed:
                raise ValueError(_not_allowed(name, value, self.allowed))
        elif not self._fits(kind, value):
            raise ValueError(f"{name} must {self._requirement(kind)}; got {value!r}.")
        return value

    def _fits(self, kind: type[Any], value: Any) -> bool:
        if kind is bool:
            return bool(value in (True, False))
        is_kind = isinstance(value, kind) and not isinstance(value, bool)
        if not is_kind or kind not in (int, float):
            return is_kind
        return bool(
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (abs(value) < math.inf if self.most is None else value <= self.most)
        )

    def _requirement(self, kind: type[Any]) -> str:
        if kind not in (int, float):
            return {bool: "be true or false", str: "be a text"}.get(kind, f"be a {kind.__name__}")
        what = {int: ["be a whole number"], float: ["be finite"]}[kind]
        what += [] if self.least is None else [f"at least {self.least:g}"]
        what += [] if self.above is None else [f"above {self.above:g}"]
        what += [] if self.most is None else [f"at most {self.most:g}"]
        return " and ".join(what)


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """Label, style and citation of a method.

    Attributes:
        summary: One sentence.
        label: Its name in figures and tables.
        strength: Name of the strength, a number of at least 0 that the schedule scales; it has no
            default.
        symbol: Symbol of the strength in figures and tables; empty: its name.
        colour: "#rrggbb"; empty: chosen automatically.
        marker: A filled marker of matplotlib; empty: chosen automatically.
        dashes: Not drawn any more, since dashes mean extrapolated times; accepted for the methods
            and manifests of earlier versions.
        citation: Key of ``methods.bib`` or ``references.bib``, or a BibTeX entry.

    Example:
        >>> mine = Appearance(label="My method", strength="rho", symbol="ρ", colour="#cc3311")
        >>> mine.symbol, mine.marker  # "": chosen automatically
        ('ρ', '')
    """

    summary: str = ""
    label: str
    strength: str = ""
    symbol: str = ""
    colour: str = ""
    marker: str = ""
    dashes: tuple[float, ...] = ()
    citation: str = ""

    def __post_init__(self) -> None:
        """Validate the style.

        Raises:
            ValueError: If a value has the wrong type, or colour or marker cannot be drawn.
        """
        for f in fields(Appearance):
            value = getattr(self, f.name)
            if f.type is str and not isinstance(value, str):
                raise ValueError(f"{f.name} of a method must be a text; got {value!r}.")
        object.__setattr__(self, "dashes", tuple(self.dashes))
        if not self.label:
            raise ValueError("A method needs a label; give its name in figures and tables.")
        if self.colour and not re.fullmatch(r"#[0-9a-fA-F]{6}", self.colour):
            raise ValueError(
                f"Method {self.label!r} has the colour {self.colour!r}; write it as '#rrggbb'."
            )
        if self.marker and self.marker not in _MARKERS:
            what = f"marker of method {self.label!r}"
            raise ValueError(_not_allowed(what, self.marker, _MARKERS))
        lengths = [length for length in self.dashes if isinstance(length, int | float)]
        if len(lengths) % 2 or len(lengths) < len(self.dashes) or min(lengths, default=1) <= 0:
            raise ValueError(
                f"Method {self.label!r} has the dashes {self.dashes!r}; give lengths above 0 of "
                "dashes and gaps in turn, or none."
            )

    @property
    def description(self) -> dict[str, Any]:
        """The fields of the appearance as JSON types."""
        values = {f.name: getattr(self, f.name) for f in fields(Appearance)}
        return values | {"dashes": list(self.dashes)}


@dataclass(frozen=True, kw_only=True)
class Method(Appearance):
    """A training method.

    Attributes:
        step: Kind of training step. "plain": the optimizer only. "two passes": gradients at
            perturbed weights, where the rule uses the gradients of a first, unperturbed pass.
            "one pass": the same without the first pass, for rules that use no gradients.
            "loss": a penalty that is added to the cross entropy.
        build: Rule or loss as "package.module:name". A function is called in every step: a rule as
            ``rule(weights, gradients, *, <strength>, <options>)`` with tensors by name (and
            ``generator`` and ``transposed_groups``, see ``training.Setting``, if it has such
            arguments), returning offsets by name; a loss as
            ``loss(logits, labels, *, <options>)``, which the strength multiplies. A class derived
            from ``training.Algorithm``, for methods with state between steps, is built once per
            training.
        options: Options by name. "clip_weights" is listed where the method clips weights by
            default.
        trains_weights: Whether the trained parameters must be the weights themselves (no
            reparametrisation).
        extra_forward_passes: Forward passes over a batch in one step that no backward pass
            follows, as those of a teacher. Costs count backward passes, and tables name the methods
            that have others.

    Example:
        >>> METHODS["samson"].step, sorted(METHODS["samson"].options)
        ('two passes', ['eta', 'p', 'perturb_norm_and_bias'])
    """

    step: Step = "plain"
    build: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    trains_weights: bool = False
    extra_forward_passes: int = 0

    def __post_init__(self) -> None:
        """Validate the entry.

        Raises:
            ValueError: If the step is unknown, build or strength are missing or not allowed, or
                the style is invalid (see `Appearance`).
        """
        super().__post_init__()
        if self.step not in get_args(Step):
            what = f"step of method {self.label!r}"
            raise ValueError(_not_allowed(what, self.step, get_args(Step)))
        for name in ("build", "strength"):
            if bool(getattr(self, name)) != (self.step != "plain"):
                raise ValueError(
                    f"Method {self.label!r} has step={self.step!r} and {name}="
                    f"{getattr(self, name)!r}; every step but 'plain' needs a {name}, and 'plain' "
                    "has none."
                )

    @property
    def perturbs_weights(self) -> bool:
        """Whether a step uses gradients at perturbed weights."""
        return self.step in ("two passes", "one pass")

    @property
    def gradient_evaluations(self) -> int:
        """Backward passes over a batch in one step."""
        return 2 if self.step == "two passes" else 1


# Colours are Okabe and Ito's for the most common methods, Tol's muted set for the others; every
# method has its own marker, for greyscale prints.
# Reports list methods in this order. Default options are those of the authors' code (see the
# docstrings of the rules and losses).
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "sgd": Method(summary="The optimizer alone.", label="SGD", colour="#000000", marker="o"),
        "sam": Method(
            summary="Worst case in a ball of radius rho.",
            label="SAM",
            step="two passes",
            build="analog_samson.perturbation:sam",
            strength="rho",
            symbol="ρ",
            colour="#56B4E9",
            marker="s",
            citation="foret2021",
        ),
        "asam": Method(
            summary="Worst case relative to |w|.",
            label="ASAM",
            step="two passes",
            build="analog_samson.perturbation:asam",
            strength="rho",
            symbol="ρ",
            options={
                "eta": Option(0.01, least=0.0),
                "dialect": Option("authors", allowed=DIALECTS),
            },
            colour="#0072B2",
            marker="^",
            citation="kwon2021",
        ),
        "samson": Method(
            summary="Worst case relative to |w| and to the range of the layer.",
            label="SAMSON",
            step="two passes",
            build="analog_samson.perturbation:samson",
            strength="rho",
            symbol="ρ",
            options={
                "eta": Option(0.01, least=0.0),
                "p": Option(math.inf, allowed=(2, math.inf)),
                "perturb_norm_and_bias": Option(True, argument="norm_and_bias"),
            },
            colour="#D55E00",
            marker="D",
            citation="mordido2022",
        ),
        "rwp": Method(
            summary="Random weight perturbation.",
            label="RWP",
            step="one pass",
            build="analog_samson.perturbation:rwp",
            strength="sigma",
            symbol="σ",
            options={
                "noise_scale": Option("filter_max", allowed=NOISE_SCALES, argument="scale"),
                "drop_share": Option(0.0, least=0.0, most=1.0),
            },
            colour="#009E73",
            marker="v",
            citation="li2022",
        ),
        "arwp": Method(
            summary="Random weight perturbation, smaller where gradients were large.",
            label="ARWP",
            step="one pass",
            build="analog_samson.perturbation:AdaptiveRandomPerturbation",
            strength="sigma",
            symbol="σ",
            options={
                "eta": Option(0.1, least=0.0),
                "fisher_decay": Option(0.99, least=0.0, most=1.0),
            },
            colour="#44AA99",
            marker="<",
            citation="li2024",
        ),
        "saf": Method(
            summary="Penalty on departing from the network's own earlier outputs.",
            label="SAF",
            step="loss",
            build="analog_samson.losses:OwnTrajectory",
            strength="trajectory_weight",
            symbol="λ",
            options={
                "temperature": Option(5.0, above=0.0),
                "trajectory_start": Option(0.3, least=0.0, most=1.0),
                "trajectory_lag": Option(2, least=1),
            },
            colour="#CC79A7",
            marker="P",
            citation="du2022",
        ),
        "mesa": Method(
            summary="Penalty on departing from the outputs of a moving average of the network.",
            label="MESA",
            step="loss",
            build="analog_samson.losses:AveragedTeacher",
            strength="trajectory_weight",
            symbol="λ",
            options={
                "temperature": Option(5.0, above=0.0),
                "trajectory_start": Option(0.3, least=0.0, most=1.0),
                "teacher_decay": Option(0.9995, least=0.0, most=1.0),
            },
            extra_forward_passes=1,
            colour="#882255",
            marker="X",
            citation="du2022",
        ),
        "noise_injection": Method(
            summary="Gaussian noise relative to the largest weight of a layer, weights clipped.",
            label="noise injection",
            step="one pass",
            build="analog_samson.perturbation:rwp",
            strength="sigma",
            symbol="σ",
            options={
                "noise_scale": Option("layer_max", allowed=NOISE_SCALES, argument="scale"),
                "drop_share": Option(0.0, least=0.0, most=1.0),
                "clip_weights": Option(2.0, least=0.0),
            },
            colour="#E69F00",
            marker="h",
            citation="joshi2020",
        ),
        "hardware_aware": Method(
            summary="Noise of a device on the weights, sigma times as large; some are dropped.",
            label="hardware aware",
            step="one pass",
            build="analog_samson.training.hardware:HardwareAware",
            strength="sigma",
            symbol="σ",
            options={
                "device": Option("pcm_like"),
                "drop_share": Option(0.01, least=0.0, most=1.0),
                "clip_weights": Option(2.0, least=0.0),
                "device_time_s": Option(None, least=0.0, kind=float, text="t={:g}s"),
            },
            trains_weights=True,
            colour="#332288",
            marker="p",
            citation="rasch2023",
        ),
    }
)

EXTERNAL_METHOD = Method(summary="Trained elsewhere.", label=EXTERNAL, colour="#888888", marker="*")


def method_of(name: str) -> Method:
    """The entry of a method.

    Args:
        name: A name from `METHODS`, "external", or "package.module:name", which is imported.

    Raises:
        ValueError: If there is no such method, or what was imported is no `Method`.

    Example:
        >>> method_of("samson").strength
        'rho'
    """
    if name == EXTERNAL:
        return EXTERNAL_METHOD
    if not is_import_name(name):
        if name not in METHODS:
            more = ", or the import name of a Method, package.module:name"
            raise ValueError(_not_allowed("method", name, [*METHODS, EXTERNAL], more))
        return METHODS[name]
    found = import_named(name, "method")
    if not isinstance(found, Method):
        raise ValueError(
            f"The method {name!r} is a {type(found).__name__}; name an object of the class "
            "analog_samson.methods.Method."
        )
    return found


def _not_allowed(what: str, value: object, allowed: Iterable[Any], more: str = "") -> str:
    names = [str(name) for name in allowed]
    close = difflib.get_close_matches(str(value), names, n=1)
    hint = f" did you mean {close[0]!r}?" if close else ""
    return f"Unknown {what} {value!r};{hint} allowed: {', '.join(names)}{more}."
