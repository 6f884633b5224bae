"""Programs in place of nnU-Net's: they leave the same files in the same order, at once and without content.

``install`` writes an executable for each of them. Files in the folder ``orders`` next to these, named after words of a
command, say what goes wrong: ``fail``, ``full`` (the disk), ``wait``, ``stay`` (wait and ignore SIGTERM) or ``half``;
``slow`` trainings show their epochs for a moment.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import platform
import signal
import sys
import time
import zipfile
from pathlib import Path

PROGRAMS = (
    "nnUNetv2_extract_fingerprint",
    "factorizer-nnunet",
    "nnUNetv2_plan_experiment",
    "nnUNetv2_preprocess",
    "nnUNetv2_train",
    "nnUNetv2_find_best_configuration",
    "nnUNetv2_apply_postprocessing",
    "nnUNetv2_evaluate_folder",
)
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")


def install(folder: Path) -> None:
    """Write the executables into a new folder."""
    (folder / "orders").mkdir(parents=True)
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{__file__}" {name} "$@"\n')
        program.chmod(0o755)


def order(folder: Path, what: str, *words: str) -> Path:
    """Let a command that has all these words do ``what``; returns the file to remove again."""
    file = folder / "orders" / f"{' '.join(words)}"
    file.write_text(what)
    return file


LOG = "".join(
    f"2026-01-01 00:00:00: {text}\n"
    for epoch in range(2)
    for text in (f"Epoch {epoch} ", "train_loss -0.5 ", "Pseudo dice [np.float32(0.5), 0.7] ", "Epoch time: 2.0 s ")
)


def _frame(payload: bytes) -> bytes:
    """A blosc2 file by its header, which states the length."""
    return b"\x9e\xa8b2frame\x00\xd2\x00\x00\x00\xcb\xcf" + (24 + len(payload)).to_bytes(8, "big") + payload


class Program:
    """One call of one of the programs."""

    def __init__(self, arguments: list[str]) -> None:
        self.words = arguments
        self.raw, self.preprocessed, self.results = (
            Path(os.environ[f"nnUNet_{kind}"]) / "Dataset501_Fake" for kind in ("raw", "preprocessed", "results")
        )
        self.cases = sorted(path.name.removesuffix(".nii.gz") for path in (self.raw / "labelsTr").iterdir())
        self.order = self._order()

    def _order(self) -> str:
        for file in (Path(os.environ["FAKE_NNUNET"]) / "orders").iterdir():
            if set(file.name.split(" ")) <= set(self.words):
                return file.read_text()
        return ""

    def option(self, *names: str) -> list[str]:
        """The words after an option, up to the next one."""
        start = next(self.words.index(name) for name in names if name in self.words) + 1
        rest = self.words[start:]
        return rest[: next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))]

    def run(self) -> None:
        if self.order == "fail":
            print("Traceback (most recent call last):\n  File somewhere\nRuntimeError: the order was to fail")
            sys.exit(1)
        if self.order == "full":
            sys.exit("OSError: [Errno 28] No space left on device")
        if self.order == "stay":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.order in ("wait", "stay"):
            print("waiting", flush=True)
            time.sleep(60)
        name = self.words[0].removeprefix("nnUNetv2_").replace("-", "_")
        getattr(self, name)()

    def extract_fingerprint(self) -> None:
        if (self.preprocessed / "dataset_fingerprint.json").exists():  # as without --clean
            return
        content = {"shapes_after_crop": [[4, 5, 6]] * len(self.cases), "spacings": [[1, 1, 1]] * len(self.cases)}
        content["seen"] = [(self.raw / "labelsTr" / f"{case}.nii.gz").read_bytes().hex()[-16:] for case in self.cases]
        self.write(self.preprocessed / "dataset_fingerprint.json", content)

    def factorizer_nnunet(self) -> None:
        if self.words[1] == "predict":
            self.predict()
        elif self.words[1] == "channel-subsets":
            self.channel_subsets()
        elif self.words[1] == "tune-postprocessing":
            self.tune_postprocessing()
        elif self.words[1] == "calibrate":
            self.calibrate()
        else:
            self.plan("nnUNetFactorizerPlans")

    def tune_postprocessing(self) -> None:
        model = "__".join(self.option(name)[0] for name in ("-tr", "-p", "-c"))
        self.write(self.results / model / "factorizer_postprocessing.json", {"scheme": self.option("--scheme")})
        self.write(Path(self.option("-o")[0]) / "tune_postprocessing.json", {})

    def plan_experiment(self) -> None:
        self.plan("nnUNetPlans")

    def plan(self, name: str) -> None:
        self.write(self.preprocessed / "dataset.json", json.loads((self.raw / "dataset.json").read_text()))
        own = {c: {"data_identifier": f"{name}_{c}", "spacing": [1, 1, 1]} for c in CONFIGURATIONS[:3]}
        own["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
        self.write(self.preprocessed / f"{name}.json", {"plans_name": name, "configurations": own})

    def preprocess(self) -> None:
        folder = self.preprocessed / f"{self.option('-plans_name')[0]}_{self.option('-c')[0]}"
        folder.mkdir(parents=True, exist_ok=True)
        for case in self.cases:
            (folder / f"{case}.b2nd").write_bytes(_frame((self.raw / "imagesTr" / f"{case}_0000.nii.gz").read_bytes()))
            (folder / f"{case}_seg.b2nd").write_bytes(_frame((self.raw / "labelsTr" / f"{case}.nii.gz").read_bytes()))
            (folder / f"{case}.pkl").write_bytes(pickle.dumps({}))
            if self.order == "half":
                sys.exit(1)
        for case in self.cases:
            copy = self.preprocessed / "gt_segmentations" / f"{case}.nii.gz"
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes((self.raw / "labelsTr" / copy.name).read_bytes())

    def train(self) -> None:
        configuration, fold = self.words[2:4]
        model = self.results / f"{self.option('-tr')[0]}__{self.option('-p')[0]}__{configuration}"
        folder = model / f"fold_{fold}"
        (folder / "validation").mkdir(parents=True, exist_ok=True)
        (folder / "training_log_1.txt").write_text(LOG)
        (folder / "debug.json").write_text(json.dumps({"hostname": platform.node(), "device": "cpu"}))
        if self.order == "slow":
            time.sleep(1)
        if "--val" not in self.words:
            self.zip(folder / "checkpoint_latest.pth")
        if self.order == "half":
            (folder / "checkpoint_final.pth").write_bytes(b"PK half")
            sys.exit(1)
        if "--val" not in self.words:
            (folder / "checkpoint_latest.pth").rename(folder / "checkpoint_final.pth")
        splits = json.loads((self.preprocessed / "splits_final.json").read_text())
        for case in splits[int(fold)]["val"]:
            (folder / "validation" / f"{case}.nii.gz").write_bytes(b"predicted")
            self.zip(folder / "validation" / f"{case}.npz")
            (folder / "validation" / f"{case}.pkl").write_bytes(pickle.dumps({}))
            if configuration == "3d_lowres":
                following = model / "predicted_next_stage" / "3d_cascade_fullres" / f"{case}.b2nd"
                following.parent.mkdir(parents=True, exist_ok=True)
                following.write_bytes(_frame(b"segmentation"))
        self.scores(folder / "validation" / "summary.json", 0.6 + int(fold) / 100)

    def find_best_configuration(self) -> None:
        models = [
            {"trainer": trainer, "plans": plans, "configuration": configuration}
            for trainer in self.option("-tr")
            for configuration in self.option("-c")
            for plans in self.option("-p")
        ]
        folds = [int(fold) for fold in self.option("-f")]
        names = ["__".join(model.values()) for model in models]
        dice = {name: 0.7 + number / 100 for number, name in enumerate(names)}
        merged = f"crossval_results_folds_{'_'.join(map(str, folds))}"
        for name in names:
            self.scores(self.results / name / merged / "summary.json", dice[name])
        chosen = models[:2]
        if len(models) > 1:
            dice[f"ensemble___{names[0]}___{names[1]}___{'_'.join(map(str, folds))}"] = 0.8
        (self.results / "postprocessing.pkl").write_bytes(pickle.dumps({}))
        (self.results / "dataset.json").write_text("{}")
        (self.results / "plans.json").write_bytes((self.preprocessed / f"{models[0]['plans']}.json").read_bytes())
        names_there = {"trainer": "trainer", "plans": "plans_identifier", "configuration": "configuration"}
        selected = [{names_there[key]: value for key, value in model.items()} for model in chosen]
        best = {
            "result_on_crossval_pre_pp": max(dice.values()),
            "result_on_crossval_post_pp": max(dice.values()) + 0.01,
            "postprocessing_file": str(self.results / "postprocessing.pkl"),
            "some_plans_file": str(self.results / "plans.json"),
            "selected_model_or_models": selected,
        }
        content = {"folds": folds, "considered_models": models, "all_results": dice, "best_model_or_ensemble": best}
        self.write(self.results / "inference_information.json", content)

    def predict(self) -> None:
        images, output = Path(self.option("-i")[0]), Path(self.option("-o")[0])
        output.mkdir(parents=True, exist_ok=True)
        record = {"images": str(images), "use_mirroring": "--disable_tta" not in self.words}
        (output / "predict_from_raw_data_args.json").write_text(json.dumps(record))
        for case in sorted({path.name.rsplit("_", 1)[0] for path in images.iterdir()}):
            if "--quality" in self.words:
                self.write(output / ".factorizer" / f"{case}.passes.json", {})
            if not (output / f"{case}.nii.gz").exists():
                (output / f"{case}.nii.gz").write_text(f"labels {time.time_ns()}")
        for ending in ("csv", "json", "html") if "--quality" in self.words else ():
            (output / f"quality.{ending}").write_text(f"{{}} {output}")

    def calibrate(self) -> None:
        model = self.results / "__".join(self.option(name)[0] for name in ("-tr", "-p", "-c"))
        content = {"version": 2, "checkpoints": {}, "num_cases": {}, "coverage": 0.9, "note": ""}
        counts = dict.fromkeys(("num_present", "num_empty", "num_missed", "num_all"), 1)
        region = {"model": None, "with_agreement": True, "median_dice": 0.5, "cases": [], **counts}
        reliability = {"counts": [], "probabilities": [], "frequencies": [], "brier": None}
        output = {"scaling": {"temperature": 1.0, "offset": 0.0}, "before": reliability, "after": reliability}
        settings = {"use_mirroring": "--disable_tta" not in self.words}
        content |= {"settings": settings, "regions": {"core": region}, "outputs": {"core": output}, "channels": [{}]}
        self.write(model / "quality_calibration.json", content)

    def channel_subsets(self) -> None:
        """One channel has one subset."""
        fold = self.option("-f")[0]
        folder = Path(self.option("-m")[0]) / f"fold_{fold}"
        cases = json.loads((self.preprocessed / "splits_final.json").read_text())[int(fold)]["val"]
        scored = {case: {"seconds": 30.0, "dice": {"T1": {"core": 0.5, "whole": 0.7}}} for case in cases}
        digest = hashlib.sha256((folder / "checkpoint_final.pth").read_bytes()).hexdigest()
        content = {"checkpoint": digest, "mirroring": False, "channels": ["T1"], "cases": scored}
        self.write(folder / "factorizer_channel_subsets.json", content)

    def apply_postprocessing(self) -> None:
        self.copy(Path(self.option("-i")[0]))

    def copy(self, source: Path) -> None:
        output = Path(self.option("-o")[0])
        output.mkdir(parents=True, exist_ok=True)
        for file in source.glob("*.nii.gz"):
            (output / file.name).write_bytes(file.read_bytes())
            if self.order == "half":
                sys.exit(1)

    def evaluate_folder(self) -> None:
        self.scores(Path(self.words[2]) / "summary.json", 0.75)

    def scores(self, file: Path, dice: float) -> None:
        mean = {"1": {"Dice": dice - 0.1}, "(1, 2)": {"Dice": dice + 0.1}}
        self.write(file, {"mean": mean, "foreground_mean": {"Dice": dice}})

    def write(self, file: Path, content: dict) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=4)
        file.write_text(text[: len(text) // 2] if self.order == "half" else text)
        if self.order == "half":
            sys.exit(1)

    @staticmethod
    def zip(file: Path) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("data", f"{time.time_ns()}" * 10)  # no two are equal, as with real ones


if __name__ == "__main__":
    Program(sys.argv[1:]).run()
