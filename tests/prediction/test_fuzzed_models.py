"""Models and images with random damage: every outcome is a message, and nothing is executed or written elsewhere.

Bounded and seeded. For a longer search: ``FACTORIZER_FUZZ=SEED:COUNT pytest tests/prediction/test_fuzzed_models.py``.
"""

from __future__ import annotations

import copy
import gzip
import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import seed_and_rounds, time_limit
from tiny_models import run_predict, write_model

from factorizer_nnunet.core.errors import UserError

SEED, COUNT = seed_and_rounds(20, 40)
SECONDS = 30  # for one prediction of one small image
FOREIGN = "foreign_package_of_the_test"

NAMES = [
    *("torch.hub.load", "os.system", "subprocess.call", "builtins.exec", "pydoc.locate", "torch.nn", "torch.nn.Module"),
    *(f"{FOREIGN}.Net", f"{FOREIGN}", f"factorizer_nnunet.network.{FOREIGN}", "factorizer_nnunet.network.nn.Linear"),
    *("factorizer_nnunet.__main__", "dynamic_network_architectures.architectures.unet.torch.hub.load"),
    *("dynamic_network_architectures.architectures.unet.nn.Linear", "torch.nn.modules.conv.torch.hub.load", "isfile"),
    *("../../../escaped", "/tmp/escaped", "shutil", "load_pickle", "..", "", "Ünit", "a b", "x" * 5000, "\udcff"),
    *("torch.nn.functional.relu", "torch.nn.Bilinear", "nnUNetTrainer", "nnUNetTrainerNoDA", "DistributedDataParallel"),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 255, 70_000, 10**9, 10**30, -(10**12), 0.5, 1e-9, 1e300, float("nan")),
    *(float("inf"), [], {}, [[]], [1, 2, 3], [0, 0, 0], [1e9] * 3, {"a": 1}, {"0": None}, "3d_lowres", ".nii.gz"),
]


def choices(rng: random.Random) -> Any:
    return copy.deepcopy(rng.choice(NAMES if rng.random() < 0.4 else VALUES))


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The paths to everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in items:
        yield (*path, key)
        yield from places(entry, (*path, key))


def mutate(value: Any, rng: random.Random, within: tuple = ()) -> None:
    """Replace, remove or add one entry somewhere, mostly below ``within``."""
    chosen = rng.choice([place for place in places(value) if place[: len(within)] == within])
    owner = value
    for key in chosen[:-1]:
        owner = owner[key]
    kind = rng.random()
    if kind < 0.2:
        del owner[chosen[-1]]
    elif kind < 0.3 and isinstance(owner, dict):
        owner[rng.choice(["extra", "_kw_requires_import", "inherits_from", "previous_stage"])] = choices(rng)
    elif kind < 0.35:
        deep: Any = owner[chosen[-1]]
        for _ in range(200):
            deep = [deep]
        owner[chosen[-1]] = deep
    else:
        owner[chosen[-1]] = choices(rng)


def mutate_json(file: Path, rng: random.Random) -> None:
    if rng.random() < 0.1:
        text = file.read_bytes()
        place = rng.randrange(len(text))
        file.write_bytes(text[:place] + rng.choice([b"", b"\xff", b"[" * 100_000, b"}", b"\x00"]) + text[place + 1 :])
        return
    content = json.loads(file.read_text())
    within = ("configurations", "3d_fullres") if file.name == "plans.json" and rng.random() < 0.8 else ()
    mutate(content, rng, within)
    file.write_text(json.dumps(content))


def damaged_weight(weight: torch.Tensor, rng: random.Random) -> Any:
    nan, inf = weight.clone(), weight.clone()
    nan.view(-1)[0], inf.view(-1)[-1] = float("nan"), float("inf")
    return rng.choice(
        [
            *(nan, inf, weight.to(torch.complex64), weight.to(torch.int32), weight > 0, weight.double() * 1e300),
            *(weight[:0], weight.reshape(-1), weight[None], torch.zeros(1).expand(10**9, 10**6), weight * 1e38),
            *(weight.to_sparse(), weight.half(), "weights", None, 3, [1.0], weight.numpy().tolist(), weight.to("meta")),
        ]
    )


def mutate_checkpoint(file: Path, rng: random.Random) -> None:
    content = torch.load(file, weights_only=False)
    weights = content["network_weights"]
    kind = rng.random()
    name = rng.choice(list(weights))
    if kind < 0.5:
        weights[name] = damaged_weight(weights[name], rng)
    elif kind < 0.6:
        weights[rng.choice(["extra", name + ".x", 3, ""])] = weights.pop(name)
    elif kind < 0.8:
        key = rng.choice(["trainer_name", "init_args", "inference_allowed_mirroring_axes", "network_weights"])
        content[key] = choices(rng)
    elif kind < 0.9:
        content["init_args"]["configuration"] = choices(rng)
    else:
        raw = file.read_bytes()
        place = rng.randrange(len(raw))
        file.write_bytes(rng.choice([raw[:place], raw[:place] + b"\x80\x04c" + raw[place + 3 :], b"", raw[place:]]))
        return
    torch.save(content, file)


def mutate_image(file: Path, rng: random.Random) -> None:
    content = bytearray(gzip.decompress(file.read_bytes()))
    for _ in range(rng.randint(1, 3)):
        kind = rng.random()
        if kind < 0.4:
            content[rng.randrange(352)] = rng.randrange(256)
        elif kind < 0.6:  # voxel sizes
            size = rng.choice([0.0, -1.0, 1e-6, 1e6, 50.0, float("nan"), float("inf")])
            struct.pack_into("<f", content, 76 + 4 * rng.randrange(8), size)
        elif kind < 0.8:  # sizes
            struct.pack_into("<h", content, 40 + 2 * rng.randrange(8), rng.choice([0, -1, 1, 2, 3, 100, 32767]))
        else:  # voxels
            value = rng.choice([float("nan"), float("inf"), 3e38])
            struct.pack_into("<f", content, 352 + 4 * rng.randrange((len(content) - 352) // 4), value)
    packed = gzip.compress(bytes(content))
    file.write_bytes(packed[: rng.randrange(len(packed))] if rng.random() < 0.1 else packed)


def files_below(folder: Path, without: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if without not in (path, *path.parents)}


def test_damage_ends_in_a_message(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / f"{FOREIGN}.py").write_text(f"open({str(root / 'executed')!r}, 'w').close()\nclass Net: pass\n")
    monkeypatch.syspath_prepend(root)
    for case in "bc":
        for file in (root / "images").glob(f"{case}_*"):
            file.unlink()
    pristine = write_model(root)
    work, images = root / "work", root / "images"
    targets: list[tuple[Callable[[Path, random.Random], None], Path]] = [
        *[(mutate_json, work / "model" / "plans.json")] * 3,
        (mutate_json, work / "model" / "dataset.json"),
        *[(mutate_checkpoint, work / "model" / "fold_0" / "checkpoint_final.pth")] * 2,
        *[(mutate_image, work / "images" / "a_0000.nii.gz")] * 2,
    ]
    for number in range(COUNT):
        rng = random.Random(f"{SEED} {number}")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(pristine, work / "model")
        shutil.copytree(images, work / "images")
        mutation, target = targets[number % len(targets)]
        mutation(target, rng)
        before = files_below(root, work / "out")
        outcome = None
        try:
            with time_limit(SECONDS, "a prediction"):
                outcome = run_predict(
                    root, work / "model", images=work / "images", out=work / "out", use_mirroring=rng.random() < 0.3
                )
        except UserError as error:
            assert 20 < len(str(error)) < 6000
        except BaseException as error:
            raise AssertionError(f"mutation {number} of seed {SEED}, {target.name}: {error!r}") from error
        else:
            assert len(outcome.predicted) + len(outcome.failed) >= 1
            assert (work / "out" / "a.nii.gz").is_file() == ("a" in outcome.predicted)
        assert not (root / "executed").exists(), f"mutation {number} of seed {SEED} was executed"
        assert files_below(root, work / "out") == before, f"mutation {number} of seed {SEED} wrote elsewhere"
