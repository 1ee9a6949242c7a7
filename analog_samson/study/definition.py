"""The definition of a study (networks, devices, times, chips) and of each of its chips."""

import functools
import hashlib
import html
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import Field

from analog_samson.checkpoint import Checkpoint, TrainingSpec
from analog_samson.chip import Engine, check_precision, choose_engine
from analog_samson.compiled import Precision
from analog_samson.data import Split, find, function_name, label_of, own_name
from analog_samson.deprecated import accepts_old_names
from analog_samson.devices import SHORT_AXIS_NAMES, Device, load_device
from analog_samson.devices.section import Name
from analog_samson.devices.sentences import explain
from analog_samson.evaluation import Accelerator, find_accelerator
from analog_samson.importing import is_import_name
from analog_samson.results.checking import check_text
from analog_samson.results.columns import DIGEST_LENGTH
from analog_samson.results.scores import ACCURACY, Score
from analog_samson.streams import derive_seed
from analog_samson.study.axes import Axis, GridPoint, grid_points
from analog_samson.study.scoring import check_samples_apart, check_score, find_score, is_counted
from analog_samson.study.sources import the_checkpoint, the_test_set, training_images_spread
from analog_samson.times import label, seconds, times_of

NUMERICS_VERSION = 4
"""Increased when the same definition gives other numbers; part of every chip's identity."""

NEAREST_TIMES = 2e-9
"""Smallest relative difference of two times of a study: our choice."""

Count = Annotated[int, Field(ge=1, le=1_000_000)]

SETTING = ("device", "compensation", "condition", "t_inference_s")
"""Columns of a table of trials that say what a chip of a network is evaluated under."""

Point = tuple[float, int]
"""A time since programming [s] and the number of the read at that time."""


def programming_seed(study_seed: int, training_seed: int, chip: int) -> int:
    """Derive the random seed of a chip: equal for all methods, different between training seeds.

    Args:
        study_seed: Seed of the study.
        training_seed: Seed that the network was trained with.
        chip: Number of the chip.

    Returns:
        The seed that ``program`` takes, as in the column ``programming_seed``.
    """
    return derive_seed(study_seed, training_seed, chip)


def _read_times(given: Any) -> Any:
    try:
        return times_of(given)
    except ValueError as error:
        raise ValueError(f"times_s: {error}") from error


OLD_NAMES = {"n_images": "n_test", "images": "n_images_per_chip"}
"""Old names of fields of :class:`Study` that still work, with a warning, to their new names."""


@dataclass(frozen=True)
class Trial:
    """One chip of a study: one programming of one trained network on one device.

    Attributes:
        study: Name of the study.
        checkpoint_path: File of the trained network; not part of the chip's identity.
        checkpoint: SHA-256 of the trained network's contents.
        spec: Specification of its training.
        device: The device with the swept axes already applied.
        condition: Swept axes and their values, a JSON object with sorted keys.
        chip: Number of the chip.
        programming_seed: Random seed of the chip.
        data_folder: Folder of the data set; not part of the chip's identity.
        evaluation_set: SHA-256 of the images it is tested on.
        n_test: How many of them the study uses, counted from the first.
        n_images_per_chip: How many of those the chip is evaluated on: all, or a random subset.
        engine: Implementation of the forward pass.
        precision: Floating-point format of its products.
        accelerator: "cpu" or "cuda"; floating point differs in the last bits, as between
            processors. Not part of the chip's identity.
        points: Times and reads to evaluate.
        score: Name of the score.
        higher_is_better: Direction of the score; not part of the chip's identity.
        trust: Packages that the checkpoint may import from; not part of the chip's identity.

    Example:
        >>> trial = study.trials()[0]
        >>> trial.spec.method, trial.chip, trial.points
        ('sgd', 0, ((1.0, 0), (3600.0, 0), (2592000.0, 0)))
    """

    study: str
    checkpoint_path: Path
    checkpoint: str
    spec: TrainingSpec
    device: Device
    condition: str
    chip: int
    programming_seed: int
    data_folder: Path | None
    evaluation_set: str
    n_test: int
    n_images_per_chip: int
    engine: Engine
    precision: Precision
    accelerator: Accelerator
    points: tuple[Point, ...]
    score: str = ACCURACY.name
    higher_is_better: bool = True
    trust: tuple[str, ...] = ()

    @functools.cached_property
    def chip_id(self) -> str:
        """Digest of all contents that determine predictions; without paths and times."""
        identity = [
            self.checkpoint,
            self.device.digest,
            self.programming_seed,
            self.engine,
            self.precision,
            self.evaluation_set,
            self.n_test,
            NUMERICS_VERSION,
        ]
        if self.n_images_per_chip < self.n_test:
            identity.append(self.n_images_per_chip)
        if not is_counted(self.score):
            identity.append(self.score)
        if self.device.needs_training_images and training_images_spread(
            self.spec.dataset, self.data_folder
        ):
            identity.append("training images one or two apart")  # once they were the first ones
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    @property
    def labels(self) -> dict[str, Any]:
        """The columns of a table of trials that are known before the chip is simulated."""
        score = {"score": self.score, "higher_is_better": self.higher_is_better}
        return ({} if is_counted(self.score) else score) | {
            "study": self.study,
            "chip_id": self.chip_id,
            "dataset": self.spec.dataset,
            "model": self.spec.model,
            "method": self.spec.method,
            "strength": self.spec.strength,
            "training_seed": self.spec.seed,
            "checkpoint": self.checkpoint[:DIGEST_LENGTH],
            "device": self.device.name,
            "compensation": self.device.drift_compensation.label,
            "engine": self.engine,
            "precision": self.precision,
            "condition": self.condition,
            "chip": self.chip,
            "programming_seed": self.programming_seed,
            "n_images_per_chip": self.n_images_per_chip,
            "n_test": self.n_test,
        }

    def __str__(self) -> str:
        network, device = self.checkpoint_path.name, self.device.name
        return f"chip {self.chip} of {network} on {device} {self.condition}"


@dataclass(frozen=True)
class Primary:
    """The one comparison that a study is made for, named before its first chip is simulated.

    It is tested alone; all other comparisons of a table are corrected for their number. The
    manifest records it, and every later change.

    Attributes:
        method: Method that is compared with the baseline, with its strength where the study has
            several ("samson rho=0.5").
        device: Name of the device.
        time_s: Time since programming, in seconds or as a text ("1 y").
        endpoint: "gain", the accuracy itself, or "lost", the accuracy lost since the digital
            network.
        baseline: Method that it is compared with.

    Example:
        >>> primary = Primary("samson", "pcm_like", "1 y", endpoint="lost")
        >>> primary.time_s, primary.baseline
        (31536000.0, 'sgd')
    """

    method: str
    device: str
    time_s: float | str
    endpoint: Literal["gain", "lost"] = "gain"
    baseline: str = "sgd"

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = {
        "strict": True,
        "revalidate_instances": "always",
    }

    def __post_init__(self) -> None:
        """Convert a time that is a text to seconds.

        Raises:
            ValueError: If it is not a time.
        """
        if isinstance(self.time_s, str):
            object.__setattr__(self, "time_s", seconds(self.time_s))


@accepts_old_names(**OLD_NAMES)
@dataclass(frozen=True, repr=False)
class Study:
    """Which networks, on which devices, at which times, how many chips each.

    Attributes:
        name: Name of the study; a column of every row.
        checkpoints: Paths of trained networks.
        devices: Names or paths of device files, or devices.
        times_s: Times since programming finished, in seconds or as texts ("1 h", "1 y"; see
            ``times.seconds``), or the name of a grid in ``times.TIME_GRIDS``; one list, or one per
            device by its name.
        n_chips: Chips of every network on every device.
        score: What is measured on each sample: a name in ``results.SCORES``, or
            "package.module:function" (see ``results.score``).
        axes: Any setting of the devices, such as "mapping.max_rows" or "drift_scale", to the values
            it takes; the grid of all of them. The section may be left out of a unique name. One
            value may set several settings: ``{"noise_scale": {"programming_noise_scale":
            [0.5, 1.0], "read_noise_1f_scale": "same"}}``; lists of one length are tied value by
            value, and tables show those of the first. "layers.PATTERN.drift_scale" is the setting
            of the layers whose names match (``[[layers]]`` of a device file).
        refresh_every: Interval after which chips are programmed again, in seconds or as a text
            ("1 mo"), or "never"; also an axis. None: as the devices say.
        compensation_times: Times since the last programming at which drift compensation is
            measured (["1 h", "1 week"]), "every 1 week", or "every time"; also an axis, whose
            values are texts such as "1 h, 1 week". None: as the devices say.
        n_reads: Reads of every chip at every time.
        seed: Random seed of the study, from which the seeds of its chips derive.
        engine: Implementation of the forward pass; None takes "compiled" if it supports the
            device.
        precision: Floating-point format of the products of the compiled engine (see
            :func:`program`).
        data_folder: Folder of the data sets; None takes the default of ``load_dataset``.
        dataset: Path of the data set of your own that the networks were trained on, wherever it
            lies now; its contents are compared. None: it is looked for in ``data_folder``. Another
            name must be that of the networks' data set.
        n_test: Test images counted from the first; None takes the whole set.
        n_images_per_chip: How many of those each chip is evaluated on: a random subset of its own,
            the same for all methods, times and reads. Digital networks are evaluated on all
            ``n_test``, and scores are estimated (``results.estimated_score``). None: every
            chip is evaluated on all.
        accelerator: "cpu" or "cuda": where the compiled engine runs. Floating point differs
            between them in the last bits, so that single ADC ties may round differently.
        chips_together: Number of chips of a network and device whose inference is batched, to use a
            GPU fully. On a CPU chips of small networks share jobs without it, and others gain
            nothing. Chips with images, input ranges or batch normalisation statistics of their
            own, and chips on aihwkit's tiles, are not batched.
        question: The question of the study, printed at the top of its report.
        primary: The comparison that answers it (see :class:`Primary`); None names none.
        trust: Packages that its checkpoints and device files may import from (see
            :func:`load_checkpoint`).

    Example:
        >>> from analog_samson.training import train
        >>> network = train(TrainingSpec(dataset="digits", epochs=1), "networks")
        >>> study = Study("example", [network], ["pcm_like"], [1.0, 3600.0], n_chips=3)
        >>> len(study.trials())  # one trial is one chip, at all times
        3
    """

    name: Name
    checkpoints: Annotated[Sequence[str | Path], Field(min_length=1)]
    devices: Annotated[Sequence[str | Path | Device], Field(min_length=1)]
    times_s: Sequence[float | str] | Mapping[str, Sequence[float | str]] | str
    n_chips: Count = 10
    score: str = ACCURACY.name
    axes: Mapping[str, Axis] = field(default_factory=dict)
    refresh_every: float | str | None = None
    compensation_times: float | str | Sequence[float | str] | None = None
    n_reads: Count = 1
    seed: int = 0
    engine: Engine | None = None
    precision: Precision = "fp32"
    data_folder: Annotated[Path | None, Field(strict=False)] = None
    dataset: str | Path | None = None
    n_test: int | None = None
    n_images_per_chip: int | None = None
    accelerator: Accelerator = "cpu"
    chips_together: Count = 1
    question: str = ""
    primary: Primary | None = None
    trust: Sequence[str] = ()

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = {
        "strict": True,
        "revalidate_instances": "always",
    }

    def __post_init__(self) -> None:
        """Convert times that are texts to seconds.

        Raises:
            ValueError: If a text is not a time, or not the name of a grid.
        """
        given: Any = self.times_s
        if isinstance(given, Mapping):
            times: Any = {device: _read_times(own) for device, own in given.items()}
        else:
            times = _read_times(given)
        object.__setattr__(self, "times_s", times)

    def __repr__(self) -> str:
        """How many of what are combined."""
        counts = {what: len(each) for what, each in self._combined().items()}
        counts |= {"chips of each": self.n_chips, "seed": self.seed}
        numbers = ", ".join(f"{what}: {n}" for what, n in counts.items())
        return f"Study({self.name!r}, {self.score}; {numbers})"

    def _repr_html_(self) -> str:
        """The question and what is combined, for notebooks."""
        texts = {what: ", ".join(each) for what, each in self._combined().items()}
        texts |= {"chips of each": str(self.n_chips), "score": self.score, "seed": str(self.seed)}
        rows = "".join(
            f"<tr><th>{html.escape(what)}</th><td>{html.escape(text)}</td></tr>"
            for what, text in texts.items()
        )
        title = html.escape(f"{self.name}. {self.question}".rstrip())
        return f"<p><b>{title}</b></p>\n<table>{rows}</table>"

    def _combined(self) -> dict[str, list[str]]:
        """What the study combines, as texts; not checked."""
        times = self.times_s
        if isinstance(times, Mapping):
            times = sorted({time for of_device in times.values() for time in of_device})
        axes = {
            axis: next(iter(given.values())) if isinstance(given, Mapping) else given
            for axis, given in self.axes.items()
        }
        return {
            "networks": [Path(one).name for one in self.checkpoints],
            "devices": [one.name if isinstance(one, Device) else str(one) for one in self.devices],
            **{f"values of {axis}": list(map(str, values)) for axis, values in axes.items()},
            "times": [label(float(time)) for time in times],
        }

    def check(self, where: str) -> None:
        """Validate the values of the fields by their types and ranges.

        Args:
            where: Name of the study or of its file, for the error.

        Raises:
            ValueError: If a value is invalid; one sentence.
        """
        plain = self
        if isinstance(self.axes, Mapping):  # numpy arrays count as lists of numbers
            plain = replace(self, axes={axis: _listed(one) for axis, one in self.axes.items()})
        try:
            _schema().validate_python(plain)
        except pydantic.ValidationError as error:
            raise ValueError(f"{where}: {explain(error.errors(), Study)}") from None

    def trials(self) -> list[Trial]:
        """All chips of the study with all their times, validated before anything runs.

        Raises:
            ValueError: If a value has the wrong type or is out of range, a time is outside a
                device's domain, several times are given and no device changes with time, an axis
                does not exist or apply, something is given twice, the score is unknown or
                does not fit a data set, or the accelerator is not available or cannot run the
                engine.
            FileNotFoundError: If a checkpoint, device or data set is missing.
        """
        self.check(f"Study {str(self.name)[:100]!r}")
        find_accelerator(self.accelerator)
        score = find_score(self.score)
        devices = self._devices()
        self._check_something_changes(devices)
        networks = list(self._networks(score))
        self._check_primary(devices, [checkpoint.spec for _, checkpoint, _, _ in networks])
        trials = [
            Trial(
                score=self.score,
                higher_is_better=score.is_higher_better,
                study=self.name,
                checkpoint_path=path,
                checkpoint=checkpoint.digest,
                spec=checkpoint.spec,
                device=device,
                condition=condition,
                chip=chip,
                programming_seed=programming_seed(self.seed, checkpoint.spec.seed, chip),
                data_folder=self._folder_of(checkpoint.spec.dataset),
                evaluation_set=evaluation_set,
                n_test=n_test,
                n_images_per_chip=self.n_images_per_chip or n_test,
                engine=engine,
                precision=self.precision,
                accelerator=self.accelerator,
                points=points,
                trust=tuple(self.trust),
            )
            for path, checkpoint, evaluation_set, n_test in networks
            for device, condition, points, engine in devices
            for chip in range(self.n_chips)
        ]
        seen: dict[str, Trial] = {}
        for trial in trials:
            if trial.chip_id in seen:
                raise ValueError(
                    f"The study contains the same chip twice: {trial} and {seen[trial.chip_id]} "
                    "have equal contents; give every checkpoint, device and axis value once."
                )
            seen[trial.chip_id] = trial
        return trials

    def settings_of_rows(self) -> list[tuple[str, str, str, float]]:
        """`SETTING` of every row of a network: chips, conditions, times and reads of all devices.

        Raises:
            ValueError: As :meth:`trials`.
            FileNotFoundError: If a device is missing.
        """
        return self.n_chips * [
            (device.name, device.drift_compensation.label, condition, time)
            for device, condition, points, _ in self._devices()
            for time, _ in points
        ]

    def under(self, settings: Mapping[str, Any], trials: Sequence[Trial]) -> list[Trial]:
        """Chips of this study with other settings of their device; no network is read again.

        Args:
            settings: Axis to its one value.
            trials: Some of :meth:`trials`, of one device.

        Raises:
            ValueError: As :meth:`trials`, for the settings.

        Example:
            >>> chips = [trial for trial in study.trials() if trial.chip == 0]
            >>> study.under({"drift_scale": 2.0}, chips)[0].condition
            '{"drift_scale": 2.0}'
        """
        scaled = replace(self, axes={axis: [value] for axis, value in settings.items()})
        ((device, condition, points, engine),) = scaled._devices()
        return [
            replace(trial, device=device, condition=condition, points=points, engine=engine)
            for trial in trials
        ]

    @property
    def maintenance(self) -> dict[str, Any]:
        """Settings of devices that the fields of the study give, by the names of axes."""
        given = {name: getattr(self, name) for name in ("refresh_every", "compensation_times")}
        return {name: value for name, value in given.items() if value is not None}

    def loaded_devices(self) -> list[Device]:
        """The devices as they are in their files, before any axis."""
        return [
            d if isinstance(d, Device) else load_device(d, tuple(self.trust)) for d in self.devices
        ]

    def _networks(self, score: Score) -> Iterator[tuple[Path, Checkpoint, str, int]]:
        """Path, contents, digest of the test set and number of test images used."""
        checked: set[tuple[Any, ...]] = set()
        for given in self.checkpoints:
            path = Path(given)
            checkpoint = the_checkpoint(path, trust=self.trust)
            spec = checkpoint.spec
            for text in (spec.dataset, spec.model, spec.method, spec.strength):
                check_text(text, str(path))
            test = the_test_set(spec.dataset, self._folder_of(spec.dataset))
            checkpoint.check_fits(test)
            options = [spec.model_kwargs, spec.output, spec.inputs, spec.rewrites]
            kind = (
                spec.dataset,
                spec.model,
                json.dumps(options, default=str),
                checkpoint.n_classes,
            )
            is_first = kind not in checked
            checked.add(kind)
            if is_first:
                check_score(score, checkpoint, test)
            if is_first or is_import_name(spec.model):  # trained weights may mix samples
                check_samples_apart(checkpoint, test)
            yield path, checkpoint, test.digest, self._n_test(test, checkpoint.spec.dataset)

    def _folder_of(self, name: str) -> Path | None:
        """Where the data set of a network is looked for."""
        if self.dataset is None or str(self.dataset) in (name, function_name(name)[0]):
            return self.data_folder
        given, own = own_name(str(self.dataset)), own_name(name)
        if given is None or own is None:
            raise ValueError(
                f"Study {self.name!r} has dataset={str(self.dataset)!r}, and a network of it was "
                f"trained on {label_of(name)!r}; give the data set of the networks, or leave it "
                "out."
            )
        if given.options and given.options != own.options:
            raise ValueError(
                f"Study {self.name!r} has dataset={str(self.dataset)!r}, and a network of it was "
                f"trained with other options, {own.short!r}; give those, or the path alone."
            )
        return find(given, self.data_folder)

    def _n_test(self, test: Split, dataset: str) -> int:
        available = len(test)
        n_test = available if self.n_test is None else self.n_test
        if not 1 <= n_test <= available:
            raise ValueError(
                f"n_test must lie between 1 and {available}, the test images of {dataset}; "
                f"got {n_test}."
            )
        if self.n_images_per_chip is not None and not 2 <= self.n_images_per_chip <= n_test:
            raise ValueError(
                f"n_images_per_chip must lie between 2 and {n_test}, the test "
                f"images of the study on {dataset}; got {self.n_images_per_chip}."
            )
        return n_test

    def _devices(self) -> list[tuple[Device, str, tuple[Point, ...], Engine]]:
        """Every device under every combination of axes, its points, and its engine."""
        found = []
        points = grid_points(self.axes, self.name)
        for axis in self.maintenance:
            if axis in points[0].settings:
                raise ValueError(
                    f"Study {self.name!r} sets {axis!r} and sweeps it as an axis; leave one out."
                )
        for given in self.loaded_devices():
            device = given.with_axes(self.maintenance)
            self._check_tied(device, points[0])
            for point in points:
                swept = device.with_axes(point.settings)
                axes: dict[str, Any] = {
                    axis if axis in point.tied else device.axis_name(axis): value
                    for axis, value in point.axes.items()
                }
                for axis in ("compensation", "compensation_times"):  # have their own column
                    axes.pop(axis, None)
                axes |= swept.always_recorded_axes
                text = json.dumps(axes, sort_keys=True)
                found.append((swept, text, self._points(swept), self._engine(swept)))
        return found

    def _check_tied(self, device: Device, point: GridPoint) -> None:
        """Check that the names of axes of tied settings are not those of settings."""
        settings = {*device.settings, *SHORT_AXIS_NAMES}
        for axis in sorted(point.tied):
            if any(axis in (name, name.rpartition(".")[2]) for name in settings):
                raise ValueError(
                    f"Axis {axis!r} of study {self.name!r} ties settings, and device "
                    f"{device.name!r} has a setting of that name; give the axis another name, such "
                    "as 'noise_scale'."
                )

    def _engine(self, device: Device) -> Engine:
        """What runs the chips of a device; checks precision and accelerator."""
        engine = choose_engine(device, self.engine)
        check_precision(engine, self.precision, device, self.accelerator)
        if self.accelerator != "cpu" and engine != "compiled":
            raise ValueError(
                f"accelerator={self.accelerator!r} is for the compiled engine only, and device "
                f"{device.name!r} would run on aihwkit's tiles; use 'cpu'."
            )
        return engine

    def _check_something_changes(
        self, devices: Sequence[tuple[Device, str, tuple[Point, ...], Engine]]
    ) -> None:
        times = {time for _, _, points, _ in devices for time, _ in points}
        if len(times) > 1 and not any(device.changes_with_time for device, *_ in devices):
            names = ", ".join(sorted({device.name for device, *_ in devices}))
            raise ValueError(
                f"Study {self.name!r} has {len(times)} times, and nothing changes with time "
                f"on {names} as defined in the study; give one time, or a device that drifts."
            )

    def _check_primary(
        self,
        devices: Sequence[tuple[Device, str, tuple[Point, ...], Engine]],
        specs: Sequence[TrainingSpec],
    ) -> None:
        """Check that the primary endpoint is one comparison of the study."""
        if self.primary is None:
            return
        name, what = self.primary, f"The primary endpoint of study {self.name!r}"
        names = sorted({f"{spec.method} {spec.strength}".strip() for spec in specs})
        for method in (name.method, name.baseline):
            meant = [one for one in names if one == method or one.split(" ")[0] == method]
            if method not in names and len(meant) != 1:
                raise ValueError(f"{what} names the method {method!r}; name one of {names}.")
        there = [
            (text, points) for device, text, points, _ in devices if device.name == name.device
        ]
        if not there:
            known = sorted({device.name for device, *_ in devices})
            raise ValueError(f"{what} names the device {name.device!r}; name one of {known}.")
        times = sorted({time for _, points in there for time, _ in points})
        if name.time_s not in times:
            raise ValueError(f"{what} names the time {name.time_s!r} s; name one of {times}.")
        if len(there) > 1:
            raise ValueError(
                f"{what} is one comparison, and device {name.device!r} has {len(there)} conditions "
                "(axes); name it in a study without axes."
            )

    def _points(self, device: Device) -> tuple[Point, ...]:
        given = self.times_s
        if isinstance(given, Mapping):
            if device.name not in given:
                raise ValueError(
                    f"times_s has no entry for device {device.name!r}; it has {', '.join(given)}."
                )
            given = given[device.name]
        times = [float(time) for time in given]
        if not times:
            raise ValueError(f"Study {self.name!r} has no times for device {device.name!r}.")
        for time in times:
            device.check_time(time)
        for time, later in itertools.pairwise(sorted(times)):
            if math.isclose(time, later, rel_tol=NEAREST_TIMES):
                raise ValueError(
                    f"Study {self.name!r} has the times {time!r} and {later!r} s, which agree to "
                    "nine digits; give one of them, once."
                )
        return tuple((time, read) for time in times for read in range(self.n_reads))


def _listed(given: Any) -> Any:
    """An axis with its numpy arrays as lists."""
    if isinstance(given, Mapping):
        return {setting: _listed(values) for setting, values in given.items()}
    return given.tolist() if hasattr(given, "tolist") else given


@functools.cache
def _schema() -> pydantic.TypeAdapter[Study]:
    return pydantic.TypeAdapter(Study)
