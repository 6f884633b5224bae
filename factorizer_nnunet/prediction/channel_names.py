"""Do the images have the channels of a model, in its order?

Files say only the number of a channel. Where the images belong to a data set of nnU-Net, its ``dataset.json`` names
them, and a model must not take a T2 for a FLAIR.
"""

from __future__ import annotations

import sys
from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson, name_key

_FIX = "Correct it, or copy the images to a folder without a dataset.json next to it"


def check_channel_names(images: Path, model: Path, dataset: DatasetJson, *, from_elsewhere: bool) -> None:
    """Compare the names of the channels; nothing is checked without a ``dataset.json`` next to the images.

    Args:
        images: folder of the images, such as ``imagesTs`` of a data set.
        model: the model, for messages.
        dataset: of the model.
        from_elsewhere: whether the model was exported. For one's own model, a file that names other channels or none is
            a warning, printed to stderr: its owner may have chosen other names since.

    Raises:
        UserError: the images have the channels in another order, or channels that an exported model does not know.
    """
    file = next((one for one in (images / DATASET_FILE, images.parent / DATASET_FILE) if one.is_file()), None)
    if file is None:
        return
    expected = dataset.channel_names
    try:
        found = DatasetJson.read(file, _FIX).channel_names
    except UserError as error:
        if from_elsewhere:
            raise UserError(f"{str(error).removesuffix(f'. {_FIX}')}. {_FIX}") from error
        print(f"warning: the channels of the images are not compared with the model's: {error}", file=sys.stderr)
        return
    if list(map(name_key, found)) == list(map(name_key, expected)) or not found:
        return
    unknown = [name for name in found if name_key(name) not in map(name_key, expected)]
    what = f"has channels that the model does not know ({', '.join(unknown)})" if unknown else "has other channels"
    if is_other_order := sorted(map(name_key, found)) == sorted(map(name_key, expected)):
        what = "has the channels in another order"
    difference = f"{file} {what}: its images are {', '.join(found)}, {model} takes {', '.join(expected)}"
    if not from_elsewhere and not is_other_order:
        print(f"warning: {difference}. Are these images for this model?", file=sys.stderr)
        return
    raise UserError(
        f"{difference}. Copy the images to a folder without a dataset.json next to it, under the numbers that the "
        "model has for them"
    )
