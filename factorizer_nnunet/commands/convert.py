"""Convert a release of BraTS, ISLES, ATLAS or MSD, or your own images and masks, for nnU-Net.

Convert an unpacked challenge release, or folders of images and masks, to a data set in nnUNet_raw. All files are read
and checked first, and all problems are listed at once; nothing is written if there are any. Sources stay unchanged.

In addition to images, labels and dataset.json, the data set contains splits_final.json (five folds balanced by lesion
volume that keep the cases of a patient together) and conversion_report.html with a picture of every case.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from factorizer_nnunet.commands.options import add_geometry_option, add_shared, add_viewer_options, request_of
from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.core.interrupts import terminable
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.dataset_conversion.options import Options, parse_remap, read_patients

if TYPE_CHECKING:
    from factorizer_nnunet.dataset_conversion.discover import SourceListing
    from factorizer_nnunet.dataset_conversion.spec import Release
    from factorizer_nnunet.dataset_conversion.survey import Survey

AUTO, LIST, FOLDERS = "auto", "list", "folders"
MAX_JOBS = 8
SHOWN = 20  # lines of lists with possibly thousands of entries

EPILOG = """\
RELEASE is a name from `factorizer-nnunet convert list`, auto to recognise the release, or folders for your own images
and masks. Masks name the cases: images p01.nii.gz, or p01_t1.nii.gz and p01_flair.nii.gz, belong to the mask p01.nii.gz
or p01_seg.nii.gz; so do files in a folder p01 with a mask mask.nii.gz.

examples:
  factorizer-nnunet convert list
  factorizer-nnunet convert brats2021 ~/downloads/BraTS2021 -d 137
  factorizer-nnunet convert isles2022 ISLES-2022 -d 22 --channels DWI ADC     # no registration without FLAIR
  factorizer-nnunet convert brats2023-men TrainingData BraTS-MEN-TRAIN-FIX-V4 -d 40 --symlink
  factorizer-nnunet convert auto ~/downloads/unknown --dry-run
  factorizer-nnunet convert folders images --masks masks -d 1 --channels CT --labels liver tumor
  factorizer-nnunet convert folders patients --masks patients -d 2 --channels T1 FLAIR --labels lesion=255
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("release", metavar="RELEASE", help="name of the release, auto, folders, or list to show all")
    add(
        "sources",
        nargs="*",
        type=Path,
        metavar="SOURCE",
        help="folder of the unpacked release or of your images; several are combined, and corrected files of a release "
        "replace the originals",
    )
    add_shared(parser, "-d", dest="dataset_id", type=int, help="ID of the new data set, 1 to 999")
    add("--name", metavar="NAME", help="name after DatasetXXX_ (default: from the release's title)")
    add(
        "--channels",
        nargs="+",
        metavar="CHANNEL",
        help="channels in this order (default: all); of folders also NAME=ENDING, where images are CASE_ENDING.nii.gz",
    )
    add_shared(
        parser,
        "-np",
        "--jobs",
        dest="jobs",
        default=min(MAX_JOBS, os.cpu_count() or 1),
        help="number of processes (default %(default)s)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--symlink", dest="link", action="store_true", help="link to files that need no change instead of copying them"
    )
    how.add_argument("--copy", action="store_true", help="copy files that need no change (default)")
    add(
        "--no-registration", dest="register", action="store_false", help="align channels on other grids by headers only"
    )
    add("--skip-invalid", action="store_true", help="leave out cases with problems and list them")
    add(
        "--allow-missing",
        action="store_true",
        help="keep cases that lack channels, for trainers that leave out channels (_channeldrop)",
    )
    add_geometry_option(parser, "accept")
    add("--dry-run", action="store_true", help="check the source and show what would be written")
    add(
        "--remap",
        nargs="+",
        default=[],
        metavar="[CASE:]OLD=NEW",
        help="label values to replace first, in one case or in all",
    )
    add("--patients", type=Path, metavar="CSV", help="columns case,patient, if case names do not identify patients")
    add_shared(parser, "--seed", default=Options.seed, help="of the folds (default %(default)s)")
    add_viewer_options(parser)
    own = parser.add_argument_group("for folders")
    own.add_argument("--masks", type=Path, metavar="DIR", help="folder of the masks; may be that of the images")
    own.add_argument(
        "--labels",
        nargs="+",
        default=[],
        metavar="NAME[=VALUE]",
        help="what the values of the masks mean (default values: 1, 2, …); without it, the values found are listed",
    )
    own.add_argument(
        "--test-images", nargs="+", default=[], type=Path, metavar="DIR", help="images without masks, for prediction"
    )


def run(args: argparse.Namespace) -> int:
    """List releases, check one, or convert it."""
    from factorizer_nnunet.dataset_conversion.releases import RELEASES

    if args.release == LIST:
        print(_listing(RELEASES.values()))
        print(f"{FOLDERS:16s} your own images and masks, see factorizer-nnunet convert --help")
        return 0
    if args.release not in (*RELEASES, AUTO, FOLDERS):
        raise UserError(f"unknown release {args.release!r}: choose from {', '.join(RELEASES)}, auto, folders, list")
    if not args.sources:
        raise UserError("no SOURCE: give the folder of the unpacked release")
    if args.dataset_id is None and not args.dry_run:
        raise UserError("no data set ID: give one with -d, such as -d 137 (or only check with --dry-run)")
    if args.release == FOLDERS and args.masks is None:
        raise UserError("no masks: give their folder with --masks, which may be that of the images")
    if args.release != FOLDERS and (args.masks is not None or args.labels or args.test_images):
        raise UserError(f"--masks, --labels and --test-images are for folders, not for {args.release}: leave them out")
    return _convert(args)


def _convert(args: argparse.Namespace) -> int:
    from factorizer_nnunet.dataset_conversion.convert import convert_release
    from factorizer_nnunet.dataset_conversion.report import PAGE_FILE
    from factorizer_nnunet.dataset_conversion.survey import refuse_problems, survey_release
    from factorizer_nnunet.nnunet.environment import nnunet_folder

    options = request_of(
        Options,
        args,
        dataset_id=args.dataset_id or 0,  # not used by a dry run
        channels=None if args.release == FOLDERS else args.channels,
        remap=parse_remap(args.remap),
        patients=None if args.patients is None else read_patients(args.patients),
    )
    raw_folder = None if args.dry_run else nnunet_folder("nnUNet_raw", writable=True)
    release, listing = _sources(args)
    for source in listing.sources:
        if raw_folder is not None and raw_folder.resolve().is_relative_to(source.resolve()):
            raise UserError(
                f"nnUNet_raw, {raw_folder}, lies in the source {source}, which is never changed: name the folder of "
                "the release itself, or set nnUNet_raw to another one"
            )
    if raw_folder is None:
        survey = survey_release(release, listing, options)
        _print_survey(survey, options)
        refuse_problems(survey, listing, options)
        print("nothing was written")
        return 0
    with terminable():
        converted = convert_release(release, listing, raw_folder, options, lambda s: _print_survey(s, options))
    _print_some("failed registration", " (the images are aligned by headers only)", converted.failed_registrations)
    if not converted.num_folds:
        print("WARNING: no folds, because fewer than five patients have labels")
    print(f"\n{converted.folder}\nSee {converted.folder / PAGE_FILE}, then run:")
    print(f"  factorizer-nnunet plan -d {args.dataset_id}")
    return 0


def _sources(args: argparse.Namespace) -> tuple[Release, SourceListing]:
    """The release that is named, recognised or described by folders, and its files."""
    from factorizer_nnunet.dataset_conversion.discover import list_files
    from factorizer_nnunet.dataset_conversion.own_folders import describe_folders
    from factorizer_nnunet.dataset_conversion.recognise import recognise
    from factorizer_nnunet.dataset_conversion.releases import RELEASES

    if args.release == FOLDERS:
        return describe_folders(args.sources, args.masks, args.test_images, args.channels, args.labels, args.jobs)
    listing = list_files(args.sources)
    if args.release != AUTO:
        return RELEASES[args.release], listing
    release = recognise(listing, args.channels)
    print(f"recognised {release.title} ({release.key})", flush=True)
    return release, listing


def _print_survey(survey: Survey, options: Options) -> None:
    training = len(survey.training)
    unlabelled = count_of(len(survey.kept) - training, "unlabelled case")
    print(f"{survey.release.title}: {count_of(training, 'labelled case')} and {unlabelled} without problems")
    if survey.kept:
        print(f"channels: {', '.join(channel.name for channel in survey.channels)}")
    for warning in survey.warnings:
        print(f"WARNING: {warning}")
    _print_some("note", "", survey.notes)
    if options.skip_invalid and survey.kept:  # otherwise they are the error message
        _print_some("problem", " (the cases are left out)", survey.problems)


def _print_some(what: str, more: str, entries: Sequence[object]) -> None:
    """The first entries; the report of the conversion has all."""
    if entries:
        print(f"{count_of(len(entries), what)}{more}:")
        print("\n".join(f"  {entry}" for entry in entries[:SHOWN]) + ("\n  …" if len(entries) > SHOWN else ""))


def _listing(releases: Iterable[Release]) -> str:
    """Every release with its channels, regions, example file and licence."""
    lines = []
    for release in releases:
        facts = {
            "channels": ", ".join(channel.name for channel in release.channels),
            "regions": ", ".join(release.schemes[0].regions),
            "files": release.example,
            "licence": release.licence,
        }
        lines += [f"{release.key:16s} {release.title}", *(f"{'':17s}{name:9s} {text}" for name, text in facts.items())]
    return "\n".join(lines)
