"""Which training method, at which strength, gives networks that are robust to weight noise?

    python experiments/train_methods.py --dataset mnist --model lenet5 --epochs 5 \
        --options lr=0.02 --methods sgd samson:rho=0.2,0.5,1.0 rwp:sigma=0.05,0.1,0.2 --seeds 0 1 2

An epoch of LeNet-5 on MNIST takes about 4 s on one core with `sgd`, twice that with `samson`; one
of ResNet-20 on CIFAR-10 more than a minute (less with --options precision=bfloat16 on processors
with bf16 instructions).
"""

from pathlib import Path

from analog_samson.commands import run_command
from analog_samson.data import path_in, short_name
from analog_samson.files import made_folder, replacing
from analog_samson.training import choose_strengths, grid, read_option, train_grid

# Three strengths around the published ones (our choice), the same number for all methods.
METHODS = (
    "sgd",
    "sam:rho=0.05,0.1,0.2",
    "asam:rho=0.5,1.0,2.0",
    "samson:rho=0.2,0.5,1.0",
    "rwp:sigma=0.05,0.1,0.2",
)


def main(
    methods: tuple[str, ...] = METHODS,
    dataset: str = "digits",
    model: str = "mlp",
    epochs: int = 20,
    seeds: tuple[int, ...] = (0,),
    options: tuple[str, ...] = (),
    folder: Path | None = None,
    data_folder: Path | None = None,
    noise_sigma: float = 0.05,
    criterion: str = "mean",
    jobs: int = 2,
    trust: tuple[str, ...] = (),
) -> None:
    """Train every method at every strength and seed; choose strengths on the validation split.

    Args:
        methods: Method, then its options and fields of TrainingSpec: samson:rho=0.2,0.5:p=2 or
            sam:rho=0.1:schedule=quadratic; package.module:name for a method of another package.
        dataset: digits, mnist, cifar10 or cifar100; the path of your own data, with options after
            commas (flowers,image_size=64; see docs/DATA.md); or package.module:function.
        model: Name of a network, or package.module:function.
        epochs: Passes over the training images.
        seeds: Training seeds.
        options: Fields that all share: lr=0.05 augmentation=crop_flip model_kwargs={"width":8}.
        folder: Where checkpoints, logs and tables go; checkpoints/<dataset>-<model> by default.
        data_folder: Folder that holds the data sets.
        noise_sigma: Weight noise of the noisy accuracy, relative to the largest weight of a layer.
        criterion: "mean" of clean and noisy accuracy, or "clean" alone.
        jobs: Worker processes; run the same command again to resume.
        trust: Packages that a checkpoint to start from (start_from) may import its network from,
            besides that of --model.
    """
    if epochs < 1:
        raise ValueError(f"--epochs must be at least 1; got {epochs}.")
    if not methods or not seeds:
        raise ValueError("Give at least one method and one training seed.")
    dataset = path_in(dataset, data_folder)
    folder = folder or Path("checkpoints") / f"{short_name(dataset)}-{model}".replace(":", "_")
    common = {"dataset": dataset, "model": model, "epochs": epochs}
    specs = grid(methods, seeds, common | dict(map(read_option, options)))
    made_folder(folder)
    table = train_grid(
        specs,
        folder,
        noise_sigma=noise_sigma,
        data_folder=data_folder,
        jobs=jobs,
        progress=True,
        trust=trust,
    )
    shown = table.drop(columns=["dataset", "model", "failure"])
    print(shown.to_markdown(index=False, floatfmt=".4g"))
    for failure in filter(None, table["failure"]):
        print(failure)
    if table["failure"].astype(bool).all():
        raise RuntimeError(
            "No network could be trained, every training diverged; use a smaller lr or strength."
        )
    chosen = choose_strengths(table, criterion=criterion)
    with replacing(folder / "strengths.csv") as temporary:
        chosen.to_csv(temporary, index=False)
    print(f"\nChosen by the {criterion} validation accuracy (weight noise {noise_sigma:g}):\n")
    print(chosen.to_markdown(index=False, floatfmt=".4g"))


if __name__ == "__main__":
    run_command(main, old_options={"--score": "--criterion"})
