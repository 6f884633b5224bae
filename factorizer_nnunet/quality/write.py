"""Assess the cases of a folder of predictions and write tables and worklist next to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.json_files import load_json_object
from factorizer_nnunet.core.locks import file_lock
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson
from factorizer_nnunet.nnunet.image_files import channels_by_case, image_name
from factorizer_nnunet.nnunet.model_folder import PREDICTION_FILE
from factorizer_nnunet.nnunet.pass_record import PASSES_ENDING, passes_file, read_passes
from factorizer_nnunet.nnunet.prediction_record import RECORDS
from factorizer_nnunet.pages.limits import ViewerLimits
from factorizer_nnunet.prediction.uncertainty import DISAGREEMENT, ENTROPY, MAPS_FOLDER, map_file
from factorizer_nnunet.quality.assess import CaseQuality, Judge, assess, judges_of
from factorizer_nnunet.quality.tables import write_tables
from factorizer_nnunet.quality.worklist import PAGE_FILE, ShownFiles, worklist_page
from factorizer_nnunet.report.own_pages import page_file, write_page


@dataclass(frozen=True)
class Assessment:
    """What was written.

    Attributes:
        cases: the most doubtful first.
        judges: the models.
        page: the worklist.
        kept: earlier files that someone had edited, under their new names.
    """

    cases: tuple[CaseQuality, ...]
    judges: tuple[Judge, ...]
    page: Path
    kept: tuple[Path, ...]


def write_quality(folder: Path, limits: ViewerLimits = ViewerLimits()) -> Assessment:  # noqa: B008 - immutable
    """Assess all cases of a folder that ``predict --quality`` has written.

    Raises:
        UserError: a record cannot be read, or a file not written.
    """
    dataset = DatasetJson.read(folder / DATASET_FILE)
    judges = judges_of(folder)
    names = [
        path.name.removesuffix(PASSES_ENDING)
        for path in sorted((folder / RECORDS).glob(f"*{PASSES_ENDING}"))
        if (folder / f"{path.name.removesuffix(PASSES_ENDING)}{dataset.file_ending}").is_file()
    ]
    cases = [assess(name, read_passes(passes_file(folder, name)), judges) for name in names]
    cases.sort(key=lambda case: (-case.doubt, -len(case.flags), case.case))
    target = page_file(folder / PAGE_FILE)
    with file_lock(folder / RECORDS / "quality.lock", f"another command writes {target}; wait until it ends"):
        try:
            page = worklist_page(
                f"{folder.absolute().name}: when to trust a segmentation",
                cases,
                judges,
                _files(folder, names, dataset),
                dataset,
                limits,
            )
            kept = [write_tables(cases, judges, folder), write_page(target, page)]
        except (OSError, RuntimeError, ValueError, IndexError) as error:  # of SimpleITK and others
            raise UserError(f"cannot write {target}: {str(error).strip().splitlines()[-1]}") from error
    return Assessment(tuple(cases), tuple(judges), target, tuple(path for path in kept if path is not None))


def _files(folder: Path, names: Sequence[str], dataset: DatasetJson) -> dict[str, ShownFiles]:
    images = Path(str(load_json_object(folder / PREDICTION_FILE, "Predict again").get("images", "")))
    channels, ending = channels_by_case(images, dataset.file_ending)[0], dataset.file_ending
    maps = {
        name: {one: folder / MAPS_FOLDER / map_file(name, one) for one in (ENTROPY, DISAGREEMENT)} for name in names
    }
    return {
        name: ShownFiles(
            tuple(images / image_name(name, channel, ending) for channel in sorted(channels.get(name, ()))),
            folder / f"{name}{ending}",
            {one: file for one, file in maps[name].items() if file.is_file()},
        )
        for name in names
    }
