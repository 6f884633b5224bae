"""Which code a file from outside may name. The only place that says so, for every command.

nnU-Net imports the classes that plans and checkpoints name: the network and what its arguments need by any dotted
path (``get_network_from_plans``), the other ones by searching one of its own folders for any attribute of that name.
So plans can call ``torch.hub.load``, which downloads and runs code. Here each name must lead to a class of the
expected kind in an expected package. Nothing else is imported to find that out.
"""

from __future__ import annotations

import contextlib
import io
import pydoc
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nnunetv2
from dynamic_network_architectures import architectures
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.plans import resolved_configuration

NETWORKS = ("factorizer_nnunet.network", "dynamic_network_architectures")
ARGUMENTS = ("torch.nn", "dynamic_network_architectures")  # what arguments of networks may import: norms, blocks, …
RESAMPLING = "nnunetv2.preprocessing.resampling"
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_TRUST = (
    "It is not loaded, since it could execute code. Restore the plans; if you trust them, predict, explain and "
    "tune-inference accept them with --trust-checkpoint"
)

# Classes that nnU-Net finds by name: key in the plans, folder of nnunetv2, what the class must be.
_OF_PLANS: tuple[tuple[str, str, type], ...] = (
    ("image_reader_writer", "imageio", BaseReaderWriter),
    ("label_manager", "utilities.label_handling", LabelManager),
)
_OF_CONFIGURATION: tuple[tuple[str, str, type], ...] = (("preprocessor_name", "preprocessing", DefaultPreprocessor),)
_RESAMPLING_KEYS = ("resampling_fn_data", "resampling_fn_seg", "resampling_fn_probabilities")


def check_named_code(plans: Mapping[str, Any], configuration: str, where: str) -> None:
    """Check everything that a configuration of the plans lets nnU-Net import.

    Args:
        plans: their content.
        configuration: such as ``3d_fullres``; nothing is checked of one that does not exist.
        where: the plans file, for messages.

    Raises:
        UserError: a name leads to other code than it should, or to none.
    """
    settings = resolved_configuration(plans, configuration, where)
    if not settings:
        return
    here = f"{where}, configuration {configuration}"
    for entries, keys, owner in ((plans, _OF_PLANS, where), (settings, _OF_CONFIGURATION, here)):
        for key, folder, kind in keys:
            if key in entries:
                _check_found(entries[key], folder, kind, f"{owner}: {key}")
    schemes = settings.get("normalization_schemes", [])
    for scheme in schemes if isinstance(schemes, list | tuple) else [schemes]:
        _check_found(scheme, "preprocessing.normalization", ImageNormalization, f"{here}: normalization_schemes")
    for key in _RESAMPLING_KEYS:
        if key in settings:
            _check_resampling(settings[key], f"{here}: {key}")
    if "architecture" in settings:  # plans of nnU-Net before 2.2 name one of its two U-Nets in another way
        check_architecture(settings["architecture"], here)


def check_architecture(architecture: object, where: str) -> None:
    """Check the classes of an ``architecture`` entry.

    Args:
        architecture: ``network_class_name``, ``arch_kwargs`` and ``_kw_requires_import``.
        where: file and configuration, for messages.

    Raises:
        UserError: the network or what an argument imports is not a class of the packages in :data:`NETWORKS` or
            :data:`ARGUMENTS`, or the entry is not built like that.
    """
    if not isinstance(architecture, Mapping):
        raise UserError(f"{where}: architecture must be an object; restore the plans")
    arguments, imported = architecture.get("arch_kwargs"), architecture.get("_kw_requires_import", [])
    if not isinstance(arguments, Mapping) or not isinstance(imported, list | tuple):
        raise UserError(f"{where}: architecture needs an object arch_kwargs and a list _kw_requires_import; restore it")
    _check_class(architecture.get("network_class_name"), NETWORKS, f"{where}: architecture.network_class_name")
    for key in imported:
        if not isinstance(key, str) or key not in arguments:
            raise UserError(f"{where}: _kw_requires_import names {key!r}, which arch_kwargs does not have; correct it")
        if arguments[key] is not None:
            _check_class(arguments[key], ARGUMENTS, f"{where}: architecture.arch_kwargs.{key}")


def trainer_class(name: str, where: str) -> type[nnUNetTrainer]:
    """The trainer that nnU-Net finds by a name, in its own folders or those in ``nnUNet_extTrainer``.

    Raises:
        UserError: there is none, or the name leads to something else.
    """
    if re.fullmatch(r"[A-Za-z_][\w.-]*", name, re.ASCII) is None:  # names of ours may contain numbers such as 1e-3
        raise UserError(f"{where}: trainer_name {name[:80]!r} is not the name of a class; restore the file")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the lookup prints every module that it visits
            found = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise UserError(
            f"the trainer {name} is not known here: add the folder that contains it to nnUNet_extTrainer"
        ) from error
    except UserError as error:  # of a name of ours with a wrong suffix
        raise UserError(f"{where}: {error}") from error
    except (AssertionError, TypeError):  # it found something that is not a trainer
        found = None
    if not (isinstance(found, type) and issubclass(found, nnUNetTrainer)):
        raise UserError(f"{where}: trainer_name {name!r} does not name a trainer of nnU-Net; restore the file")
    return found


def _check_class(name: object, packages: tuple[str, ...], where: str) -> None:
    """Check a dotted name, which ``pydoc.locate`` imports from left to right."""
    expected = f"expected a class of {' or '.join(packages)}"
    if not (isinstance(name, str) and _DOTTED.fullmatch(name) and _is_within(name, packages)):
        raise UserError(f"{where} is {_shown(name)}; {expected}. {_TRUST}")
    try:
        found = pydoc.locate(name)
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"{where}: {name} cannot be imported ({error}); {expected}") from error
    if found is None and _is_within(name, (NETWORKS[1],)):  # it has moved: nnU-Net searches by the last part
        found = _found_in_architectures(name.rpartition(".")[2])
    if found is None:
        raise UserError(f"{where}: there is no {name}; {expected}. Correct it, or install the version that has it")
    if not (isinstance(found, type) and issubclass(found, nn.Module) and _is_within(found.__module__, packages)):
        raise UserError(f"{where} is {name}; {expected}. {_TRUST}")


def _found_in_architectures(name: str) -> object:
    folder = Path(architectures.__path__[0])
    return recursive_find_python_class(str(folder), name, architectures.__name__)


def _check_found(name: object, folder: str, kind: type, where: str) -> None:
    found = _found_in_nnunet(name, folder)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise UserError(f"{where} is {_shown(name)}; expected a {kind.__name__} of nnU-Net. Restore the plans")


def _check_resampling(name: object, where: str) -> None:
    found = _found_in_nnunet(name, "preprocessing.resampling")
    is_function = isinstance(found, Callable) and not isinstance(found, type)  # type: ignore[arg-type]
    if not is_function or not _is_within(getattr(found, "__module__", ""), (RESAMPLING,)):
        raise UserError(f"{where} is {_shown(name)}; expected a resampling function of nnU-Net. Restore the plans")


def _found_in_nnunet(name: object, folder: str) -> object:
    """What nnU-Net would find; it imports only modules of nnU-Net."""
    if not isinstance(name, str) or not name.isidentifier():
        return None
    path = Path(nnunetv2.__path__[0], *folder.split("."))
    return recursive_find_python_class(str(path), name, f"nnunetv2.{folder}")


def _is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _shown(name: object) -> str:
    return f"{name!r}"[:120]
