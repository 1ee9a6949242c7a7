"""Say how far a study is and what it has found so far, without torch.

    python experiments/study_status.py results/quickstart

Works while the study runs, here or on another machine with the same folder.
"""

from pathlib import Path
from typing import Annotated

import tyro

from analog_samson.commands import run_command
from analog_samson.progress import status


def main(folders: Annotated[tuple[Path, ...], tyro.conf.Positional]) -> None:
    """Say how far one or several studies are.

    Args:
        folders: Folders of studies.
    """
    for folder in folders:
        print(status(folder))


if __name__ == "__main__":
    run_command(main)
