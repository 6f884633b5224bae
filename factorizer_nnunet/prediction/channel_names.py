"""Do the images have the channels of a model, in its order?

Files say only the number of a channel. Where the images belong to a data set of nnU-Net, its ``dataset.json`` names
them, and a model must not take a T2 for a FLAIR.
"""

from __future__ import annotations

from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson

_FIX = "Correct it, or copy the images to a folder without a dataset.json next to it"


def check_channel_names(images: Path, model: Path, dataset: DatasetJson, from_elsewhere: bool) -> str | None:
    """Compare the names of the channels; nothing is checked without a ``dataset.json`` next to the images.

    Args:
        images: folder of the images, such as ``imagesTs`` of a data set.
        model: the model, for messages.
        dataset: of the model.
        from_elsewhere: whether the model was exported. Else unknown names are a warning: both may be the user's own.

    Returns:
        A warning.

    Raises:
        UserError: the images have the channels in another order, or channels that an exported model does not know.
    """
    file = next((one for one in (images / DATASET_FILE, images.parent / DATASET_FILE) if one.is_file()), None)
    if file is None:
        return None
    found, expected = DatasetJson.read(file, _FIX).channel_names, dataset.channel_names
    if list(map(_key, found)) == list(map(_key, expected)) or not found:
        return None
    unknown = [name for name in found if _key(name) not in map(_key, expected)]
    what = f"has channels that the model does not know ({', '.join(unknown)})" if unknown else "has other channels"
    if is_other_order := sorted(map(_key, found)) == sorted(map(_key, expected)):
        what = "has the channels in another order"
    difference = f"{file} {what}: its images are {', '.join(found)}, {model} takes {', '.join(expected)}"
    if not from_elsewhere and not is_other_order:
        return f"{difference}. Are these images for this model?"
    raise UserError(
        f"{difference}. Copy the images to a folder without a dataset.json next to it, under the numbers that the "
        "model has for them"
    )


def _key(name: str) -> str:
    """The name without what differs between places: capitals, spaces, dashes and the like."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
