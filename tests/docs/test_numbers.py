"""Measured numbers in README and pages are those of the committed results in docs/measured."""

from __future__ import annotations

import itertools
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from benchmarks import default_search as search
from benchmarks.component_auc import best_maps
from benchmarks.real_data.candidates import ALL_ARMS, CANDIDATES
from benchmarks.real_data.data import DATA_SETS
from benchmarks.real_data.in_short import TESTED, long_rows, nmf_gain, overview, robustness_rows
from benchmarks.real_data.summary import Comparison, comparison, robustness_of_models, shown

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "docs" / "measured"
NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?![\w.]*\w)")
SETS = ("hippocampus", "brats_2mm", "acdc", "la_x2")
UNET, DEFAULT, PLAIN, SWIN = "PlainConvUNet", "Factorizer default", "Factorizer plain", "Factorizer swin"
FORWARD, STEP = "forward", "forward + backward"
DEEPER = "widths 48…, two blocks from the third stage"


def results(name: str) -> Any:
    return json.loads((MEASURED / f"{name}.json").read_text())


def speed(device: str, dtype: str) -> dict[str, Any]:
    """The modes of the only entry of a device with patches of 128 x 128 x 128 voxels."""
    found = [e for e in results("speed") if (e["device"], e["dtype"]) == (device, dtype)]
    (entry,) = (e for e in found if e["patch_size"] == [128, 128, 128])
    return entry["modes"]


def gib(mode: dict[str, Any], network: str) -> str:
    return f"{mode['peak_bytes'][network] / 2**30:.2f} GiB"


def hippocampus(comparison: str, budget: str = "short") -> dict[str, Any]:
    (row,) = (r for r in results("hippocampus")["rows"] if (r["budget"], r["comparison"]) == (budget, comparison))
    return row


def dice(comparison: str) -> str:
    """Of five folds."""
    row = hippocampus(comparison)
    assert row["folds"] == [0, 1, 2, 3, 4]
    return f"{row['mean_dice']:.3f}"


def readme() -> Iterator[str]:
    cpu, h200 = speed("CPU, 1 thread", "float32")[STEP], speed("NVIDIA H200", "float16")[STEP]
    unet, default = (f"{cpu['seconds'][name]:.1f} s, {gib(cpu, name)}" for name in (UNET, DEFAULT))
    yield f"(docs/measured/speed.md), 128 × 128 × 128 voxels, one CPU core | {unet} | **{default}** |"
    unet, plain = (f"{1000 * h200['seconds'][name]:.1f} ms, {gib(h200, name)}" for name in (UNET, PLAIN))
    yield f"float16, compiled, `--variant plain` | {unet} | **{plain}** |"
    ct = results("prediction")["CT, 25 classes"]
    stock, own = (f"{ct[name]['seconds']} s, {ct[name]['gb']} GB" for name in ("nnU-Net", "factorizer-nnunet"))
    yield f"CT of 512 × 512 × 300 voxels, 25 classes, tiny networks | {stock} | **{own}** |"
    content = results("real_data")
    yield from (" | ".join(row) for row in overview(content)[1:])
    yield from (" | ".join(row).replace("-", "−") for row in long_rows(content)[1:])
    long = {equal: studied("hippocampus", equal, "long") for equal in ("time", "iterations")}
    gains = [shown(found.difference("default", "unet_ours")).replace("-", "−") for found in long.values()]
    minutes = long["iterations"].results["default"][0]["seconds"] / 60
    took = [long["time"].results[arm][0]["seconds"] for arm in ("default", "unet")]
    yield f"Factorizer took {took[0] / took[1]:.1f} times as long as the U-Net"
    yield "over the U-Net with our recipe it is {}, and {} after as many".format(*gains)
    yield f"which took Factorizer {minutes:.0f} CPU minutes"
    assert all(
        found.mean("unet_ours") - found.mean("unet") > found.difference("default", "unet").mean / 2
        for found in long.values()
    )
    short = studied("brats_2mm", "time")
    yield f"next to nothing ({short.mean('default'):.3f} before) and the U-Net much ({short.mean('unet'):.3f})"
    lower = []
    for name, folds, patients, unet_mean, mean, _, unet_worst, worst, gain in robustness_rows(content)[1:]:
        yield f"| {name} | {folds} | {patients} | {unet_mean} | {mean} | {unet_worst} | {worst} |"
        assert "[-" in gain and ", +" in gain, "the interval includes 0"
        lower += [name] if gain.startswith("-") else []
    assert lower == [DATA_SETS["acdc"].title]
    unet_tested, default_tested = robustness_of_models(content, "hippocampus/3d_fullres", TESTED).values()
    complete = [f"{own.worst_complete:.3f}" for own in (unet_tested, default_tested)]
    yield "the hippocampus is {} (U-Net) and {}.".format(*complete)
    models = (("default", "time"), ("unet_ours", "iterations"))
    default_tested, unet_tested = robustness_of_models(content, "brats_2mm/3d_fullres", models).values()
    yield f"({unet_tested.worst:.3f} and {default_tested.worst:.3f})"
    yield f"({on_fold_2('la_x2', 'iterations')}), and on ACDC also in equal time ({on_fold_2('acdc', 'time')};"
    assert "[−" in on_fold_2("acdc", "iterations")
    short = studied("hippocampus", "time")
    published = [f"{short.mean(arm):.3f}" for arm in ("swin", "unet", "unet_ours")]
    yield "has {} in equal time, less than both U-Nets ({} and {}, fold 0)".format(*published)
    for setup in content["setups"]:
        tested = robustness_of_models(content, setup, TESTED)
        lost = [own.clean - own.mean for own in tested.values()]
        assert lost == sorted(lost), "the U-Net loses less"
    spreads = search.seed_spreads(results("default_search")).values()
    yield f"of {min(spreads):.3f} to {max(spreads):.3f} (fold 1). In equal training time"
    default, plain = (
        max(piece["iterations"] for key, piece in trainings(content) if key.split("/")[3] == arm)
        for arm in ("default", "plain")
    )
    assert plain >= hippocampus("equal wall time", "long")["iterations"]
    longest = f"at most {default} iterations of the default, and {plain} of the plain form"
    yield f"{longest}, where nnU-Net's usual training has 250,000"
    apart = {name: studied(name, "time").difference("default", "plain").low for name in SETS}
    assert [name for name, low in apart.items() if low > 0] == ["acdc"]
    gained = studied("acdc", "time").difference("default", "plain").mean
    assert gained == pytest.approx(search.seed_spreads(results("default_search"))["acdc"], abs=0.01), "about as much"
    plain, swin = (f"{h200['speedup'][UNET][name]:.2f} times" for name in (PLAIN, SWIN))
    yield f"`--variant plain` trained {plain} as fast as the U-Net, and the published form, `--variant swin`, {swin}"


def which_size() -> Iterator[str]:
    step = speed("NVIDIA H200", "float16")[STEP]["seconds"]
    yield f"H200, `--variant plain`: {250 * step[PLAIN]:.1f} for the training steps of 128 × 128 × 128 voxels"
    yield f"takes [{1000 * step[PLAIN]:.1f} ms on an H200](measured/speed.md)"
    yield f"and the U-Net's {1000 * step[UNET]:.1f} ms"
    yield f"[{dice('equal wall time')}](measured/hippocampus.md), the U-Net {dice('nnU-Net')}"
    seconds = results("hippocampus")["timing"]["seconds_per_iteration"]
    yield f"takes {seconds['Factorizer']:.3f} s on one thread, and the U-Net's {seconds['nnU-Net']:.3f} s"
    yield f"[at most {100 * max(abs(row['error']) for row in results('memory')['rows']):.1f} % off]"
    yield f"trainings of at most {max(run['iterations'] for run in seeds('planning_study'))} iterations"
    lost = mean_dice("planning_study", "planned") - mean_dice("planning_study", DEEPER)
    yield f"Dice was [{lost:.3f} lower]"


def seeds(study: str, part: str = "final") -> list[dict[str, Any]]:
    return results(study)["runs"][part]


def mean_dice(study: str, form: str, task: str = "hippocampus", part: str = "final") -> float:
    """Of all classes, and of three seeds (``final``) or one (``screening``)."""
    runs = [run for run in seeds(study, part) if (run["form"], run["task"]) == (form, task)]
    assert len(runs) == {"final": 3, "screening": 1}[part]
    return statistics.fmean(value for run in runs for value in run["dice"])


def gpu() -> Iterator[str]:
    modes = speed("NVIDIA H200", "float16")
    forward, step = modes[FORWARD], modes[STEP]
    for name in (UNET, SWIN, PLAIN):
        row = f"| {1000 * forward['seconds'][name]:.1f} | {1000 * step['seconds'][name]:.1f} | {gib(step, name)} |"
        if name != UNET:
            share = step["peak_bytes"][name] / step["peak_bytes"][UNET]
            row += f" {forward['speedup'][UNET][name]:.2f} ×, {step['speedup'][UNET][name]:.2f} ×, {share:.2f} |"
        yield row
    h100 = speed("NVIDIA H100 80GB HBM3", "float16")[STEP]["seconds"]
    unet, swin, plain = (f"{1000 * h100[name]:.1f}" for name in (UNET, SWIN, PLAIN))
    yield f"PlainConvUNet took {unet}, swin {swin} and plain {plain} ms"


def prediction() -> Iterator[str]:
    found = results("prediction")
    ct, mr, small = (found[case] for case in ("CT, 25 classes", "MR, 4 channels, regions", "200 small cases"))
    for case, text in ((ct, "the CT"), (mr, "the MR"), (small, "the small cases")):
        time, memory = (f"{case['factorizer-nnunet'][unit] / case['nnU-Net'][unit]:.2f}" for unit in ("seconds", "gb"))
        yield f"{text} {time} of the time and {memory} of the memory"
    assert found["CT, five folds"]["factorizer-nnunet"]["gb"] == ct["factorizer-nnunet"]["gb"]
    assert min(one["equal"] for case in (ct, mr, small) for one in case.values() if "equal" in one) > 0.9999
    assert ct["factorizer-nnunet, 4 GB"]["gb"] < 4 and small["factorizer-nnunet"]["growth"] == 1


def trainings(content: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(key, piece) for key, piece in content["pieces"].items() if "iterations" in piece]


def studied(data: str, equal: str, budget: str = "short") -> Comparison:
    """The trainings on fold 0."""
    found = comparison(results("real_data"), f"{data}/3d_fullres", budget, equal)
    assert found is not None and found.folds == (0,)
    return found


def on_fold_2(data: str, equal: str) -> str:
    """The default minus the U-Net with our recipe."""
    found = comparison(results("real_data"), f"{data}/3d_fullres", "short", equal, arms=("default", "unet_ours"))
    assert found is not None and 2 in found.folds
    return shown(found.on([2]).difference("default", "unet_ours")).replace("-", "−")


def nmf() -> Iterator[str]:
    """What the NMF earns: of the default and of the NMF at every resolution."""
    content, pairs = results("real_data"), (("default", "no_nmf"), ("everywhere", "default"))
    models = [("default", "time"), ("no_nmf", "time"), ("unet_ours", "iterations")]
    with_nmf, without, unet = robustness_of_models(content, "brats_2mm/3d_fullres", models).values()
    yield f"{with_nmf.mean:.3f} with NMF and {without.mean:.3f} without"
    yield f"5th percentile {with_nmf.worst:.3f} and {without.worst:.3f}"
    yield f"the U-Net with our recipe {unet.mean:.3f} and {unet.worst:.3f}"
    by_fold = comparison(content, "hippocampus/3d_fullres", "short", "iterations", arms=pairs[0])
    assert by_fold is not None and by_fold.folds == (0, 2)
    gains = [shown(by_fold.on([fold]).difference(*pairs[0])).replace("-", "−") for fold in (0, 2)]
    yield f"({gains[0].partition(' ')[0]}), but not on its fold 2 ({gains[1]})"
    everywhere = [studied("la_x2", equal).mean("everywhere") for equal in ("time", "iterations")]
    yield "150 ({:.3f} and {:.3f})".format(*everywhere)
    for data in SETS:
        compared = [(equal, *pair) for pair in pairs for equal in ("iterations", "time")]
        cells = [nmf_gain(content, f"{data}/3d_fullres", *one) for one in compared]
        yield f"| {DATA_SETS[data].title} | {' | '.join(cells)} |".replace("-", "−")
    maps = results("component_auc")["brats_2mm/3d_fullres"]["networks"]
    regions = ("whole tumor", "tumor core", "enhancing tumor")
    compared = ("default", "plain", "everywhere", "unet")
    aucs = ["{1}, {3} and {5}".format(*best_maps(maps[arm], regions)) for arm in compared]
    yield "an AUC of {}; that of the plain form {}; with the NMF everywhere {}".format(*aucs)
    yield f"the best of {len(maps['unet']['scored_on']['auc'])} channels of the U-Net {aucs[3]}"


def default_form() -> Iterator[str]:
    gained = mean_dice("forms", "default", "far context") - mean_dice("forms", "no NMF", "far context")
    yield f"beats the network without NMF on far context by {gained:.3f}"
    far, near = (
        {form: f"{mean_dice('forms', form, task, 'screening'):.3f}" for form in ("default", "no depthwise", "lr 1e-2")}
        for task in ("far context", "hippocampus")
    )
    yield f"on the hippocampus ({near['no depthwise']} against {near['default']}, one seed)"
    yield f"on the hippocampus ({near['lr 1e-2']} against {near['default']})"
    yield f"on far context ({far['lr 1e-2']} against {far['default']})"
    lost = mean_dice("planning_study", "planned") - mean_dice("planning_study", DEEPER)
    yield f"is {lost:.3f} ± 0.006 behind"
    searched = {key.split("/")[3] for key in results("default_search")["pieces"] if key.startswith("hippocampus")}
    yield f"knows, {len(searched & set(CANDIDATES))} and the present default were trained on the hippocampus"
    trained = search.overview(results("default_search"))
    header = trained[0]
    gained = {row[0]: dict(zip(header, (cell.partition(" ")[0] for cell in row), strict=True)) for row in trained[1:]}
    compared = ("kernels_of_5", "gated", "plain_everywhere", "two_depthwise", "default")
    names = {arm: ALL_ARMS[arm].title for arm in compared}
    hippocampus, atrium, heart, brain = ("hippocampus", "la_x2", "acdc", "brats_2mm")

    def gain(arm: str, data: str, equal: str = "equal iterations") -> str:
        return gained[names[arm]][f"{data}, {equal}"].replace("-", "−")

    for data in SETS:
        cells = [gain("default", data)]
        cells += [shown(studied(data, equal).difference("default", "plain")) for equal in ("iterations", "time")]
        yield f"| {DATA_SETS[data].title} | {' | '.join(cells)} |".replace("-", "−")
    for data, equal in itertools.product(SETS, ("iterations", "time")):
        assert all(studied(data, equal).difference("default", unet).low > 0 for unet in ("unet", "unet_ours"))
    assert studied(hippocampus, "iterations").difference("plain", "unet_ours").high < 0
    heart_compared = studied(heart, "iterations")
    own, *unets = (heart_compared._by_patient(arm) for arm in ("default", "unet", "unet_ours"))
    for base in unets:
        apart = [own[patient] - base[patient] for patient in base]
        assert f"{stats.wilcoxon(apart).pvalue:.3f}" == "0.055"
    yield "on ACDC after as many iterations p = 0.055)"
    fold_2 = {data: [on_fold_2(data, equal) for equal in ("iterations", "time")] for data in SETS}
    yield "hippocampus {} after as many iterations and {} in equal time".format(*fold_2[hippocampus])
    yield "left atrium {} and {}; BraTS {} and {}".format(*fold_2[atrium], *fold_2[brain])
    yield "ACDC {} and {}, where it misses one of eight patients".format(*fold_2[heart])
    missed = comparison(results("real_data"), "acdc/3d_fullres", "short", "time", arms=("default", "unet"))
    assert missed is not None
    own, base = (missed._by_patient(arm)["patient014"] for arm in ("default", "unet"))
    yield f"014: a Dice of {own:.2f} in equal time, the U-Net {base:.2f}"
    yield from nmf()
    long = studied("hippocampus", "time", "long")
    gains = [studied(data, "time", "long").difference("default", "unet") for data in SETS]
    gains += [long.difference("default", other) for other in ("plain", "unet_ours")]
    texts = [shown(found).replace("-", "−") for found in gains]
    yield "recipe: hippocampus {}, BraTS {} (four patients), ACDC {}, left atrium {}.".format(*texts[:4])
    yield "{} from the plain form and {} from the U-Net with our recipe".format(*texts[4:])
    forms = [(arm, "time") for arm in ("default", "plain")]
    first, second = (
        list(robustness_of_models(results("real_data"), f"{data}/3d_fullres", forms).values())
        for data in (hippocampus, atrium)
    )
    yield "it has {:.3f} on the hippocampus, the plain form {:.3f}".format(*(own.mean for own in first))
    yield "left atrium {:.3f} and {:.3f}, with a".format(*(own.mean for own in second))
    yield "5th percentile of {:.3f} and {:.3f}".format(*(own.worst for own in second))
    five = (gain("kernels_of_5", data) for data in (hippocampus, brain, atrium))
    yield "{} on the hippocampus (three seeds), {} on BraTS, {} on the left atrium".format(*five)
    yield f"have a standard deviation of {search.seed_spreads(results('default_search'))[atrium]:.3f}"
    yield f"{gain('two_depthwise', hippocampus)}, {gain('two_depthwise', brain)} and {gain('two_depthwise', atrium)}"
    everywhere = (gain("plain_everywhere", data) for data in (hippocampus, atrium, brain, heart))
    yield "{} on the hippocampus, {} on the left atrium, {} on BraTS, {} on ACDC".format(*everywhere)
    yield f"on the left atrium {gain('plain_everywhere', atrium, 'equal training time')}; on the hippocampus [behind]"
    found = studied(brain, "time").difference("plain_everywhere", "plain")
    yield f"[{found.mean:+.3f}](measured/real_data.md#brats_2mm-3d_fullres), interval from"
    yield f"interval from {found.low:+.3f} to {found.high:+.3f}".replace("-", "−")
    gated = (gain("gated", data) for data in (heart, atrium, hippocampus, brain))
    yield "{} on ACDC, {} on the left atrium and {} on the hippocampus (three seeds each), {} on BraTS".format(*gated)
    yield f"the hippocampus {gain('gated', hippocampus, 'equal training time')} (one seed)"
    costs = [setup["seconds"] for setup in results("default_search")["setups"].values()]
    gpu = results("candidate_gpu_cost")["networks"]
    for arm, unit in (("plain_everywhere", "times the CPU time"), ("default", "times as long on a CPU")):
        shares = [cost[arm] / cost["plain"] for cost in costs if arm in cost]
        yield f"{min(shares):.2f} to {max(shares):.2f} {unit}"
        launches, gigabytes = (gpu[arm][what] / gpu["plain"][what] for what in ("launches", "gb"))
        yield f"{launches:.2f} times the launches and moves {gigabytes:.2f} times the bytes"
    setups = results("real_data")["setups"].values()
    shares = [
        one["seconds"]["everywhere"] / one["seconds"]["default"] for one in setups if "everywhere" in one["seconds"]
    ]
    yield f"In the default's form it takes {min(shares):.1f} to {max(shares):.1f} times the CPU time, "
    launches, gigabytes = (gpu["everywhere"][what] / gpu["default"][what] for what in ("launches", "gb"))
    yield f"{launches:.2f} times the launches and {gigabytes:.2f} times the bytes"


def tune_inference() -> Iterator[str]:
    literal, gram = (
        results("tune_inference")["literal"]["patches"]["32 x 32 x 32"][way] for way in ("literal", "gram")
    )
    yield f"took {literal['1']:.2f} s instead of {literal['5']:.2f} s"
    yield f"({literal['5'] / literal['1']:.2f} times as fast"
    yield f"takes {gram['1']:.3f} s instead of {gram['5']:.3f} s ({gram['5'] / gram['1']:.2f};"
    rows = {tuple(map(str, row["setting"].values())): row for row in results("tune_inference")["published"]["rows"]}
    plain, one_iteration, one_axis = (
        rows[key] for key in (("5", "2", "[]", "0.5"), ("1", "2", "[]", "0.5"), ("5", "2", "[2]", "0.5"))
    )
    yield f"Dice drops from {plain['dice']:.3f} to {one_iteration['dice']:.3f}".replace("0.", ".")
    yield f"{plain['speed_up']:.1f} times as fast, Dice −{-plain['change']:.3f}".replace("−0.", "−.")
    yield f"the last axis alone: {one_axis['speed_up']:.1f} times as fast, −{-one_axis['change']:.4f}".replace(
        "−0.", "−."
    )


def planning() -> Iterator[str]:
    rows = results("plan_fingerprints")
    yield f"{len(rows)} configurations, planned in at most {max(float(row[-1]) for row in rows)} s per data set"


def quality() -> Iterator[str]:
    hippocampus, heart, atrium, brain = (
        results("quality")[name] for name in ("hippocampus", "acdc", "la_x2", "brats_2mm")
    )
    measured = ((hippocampus, 25, 24, 18), (heart, 14, 16, 9), (atrium, 14, 14, 9), (brain, 10, 6, 9))
    for one, minutes, cases, kinds in measured:
        assert one["folds"] == 2 and f"_{minutes}m__" in one["model"] and len(one["conditions"]) == 1 + kinds
        assert one["clean"] == cases * len(one["median_dice"])
        yield f"AUROC {one['auroc']:.3f}"
        yield f"off by {one['mean_error_clean']:.3f}"
        yield f"contain {one['coverage_clean']:.0%}".replace("%", " %")
    yield f"{hippocampus['calibration_cases']} cases to calibrate on and {hippocampus['clean']} regions"
    yield f"{brain['calibration_cases']} cases are little"
    before, after = brain["ece"].pop("whole tumor")
    assert before == after
    yield f"stays as it is at {before:.3f}"
    for one, *_ in measured:
        assert all(after < before / 2 for name, (before, after) in one["ece"].items() if name != "background")
    without, with_quality = (statistics.median(hippocampus["cost"][name]) for name in ("without", "with"))
    yield f"{with_quality / without:.2f} times the CPU time"


def label_check() -> Iterator[str]:
    found = results("label_errors")
    cases = {name: one["cases"] for name, one in found.items()}
    yield f"{cases['hippocampus']} hippocampi and {cases['la_x2']} left atria"
    shown = [found["hippocampus"], found["la_x2"]]
    planted = [sum(one["planted"].values()) for one in shown]
    for by, words in (("lines", "cases with errors had a line in"), ("kind", "first lines said what the error is")):
        right = sum(round(one["found"][by] * count) for one, count in zip(shown, planted, strict=True))
        yield f"{right} of {sum(planted)} {words}"
    assert "_8m__" in found["hippocampus"]["model"] and "_10m__" in found["la_x2"]["model"]


def finetuning() -> Iterator[str]:
    for one in results("finetune").values():
        assert one["iterations"] == 100
        for number, (scratch, tuned) in enumerate(zip(one["scratch"], one["finetuned"], strict=True)):
            fold = "another" if number else "one fold"
            yield f"{100 * scratch['dice']:.1f} and {100 * tuned['dice']:.1f} on {fold}"


def missing_sequences() -> Iterator[str]:
    subsets = results("channel_subsets")["models"]["_channeldrop"]["differences"]
    complete, without_one = (subsets[group] for group in ("all channels", "mean without one channel"))
    yield f"is {without_one['mean']:.1f} points of Dice above"
    yield f"{without_one['low']:.1f} to {without_one['high']:.1f}), most of all"
    yield f"it is {-complete['mean']:.1f} points below (−{-complete['low']:.1f} to +{complete['high']:.1f})"
    forms = results("channel_forms")["models"]
    complete, without_one = (
        [forms[name]["differences"][group] for name in ("zeroed", "marked")]
        for group in ("all channels", "mean without one channel")
    )
    for one in complete:
        yield f"{-one['mean']:.1f} points below"
        yield f"({abs(one['high']):.1f} to {-one['low']:.1f})"
    yield "the differences are " + " and ".join(f"−{-one['mean']:.1f}" for one in without_one)


PAGES = {
    "docs/missing_sequences.md": missing_sequences,
    "docs/finetuning.md": finetuning,
    "docs/label_check.md": label_check,
    "README.md": readme,
    "docs/which_size.md": which_size,
    "docs/gpu.md": gpu,
    "docs/prediction.md": prediction,
    "docs/default_form.md": default_form,
    "docs/tune_inference.md": tune_inference,
    "docs/planning.md": planning,
    "docs/quality.md": quality,
}
NOT_MEASURED = {
    "0.05",
    "2021",
    "2023",
    "3.10",
    "30",
    "2",
    "2.0",
    "6",
    "1",
    "0",
}  # years, versions, sizes, a fold


@pytest.mark.parametrize("page", PAGES)
def test_numbers_are_those_of_the_results(page: str) -> None:
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    missing = [sentence for sentence in PAGES[page]() if sentence not in text]
    assert not missing


def test_the_readme_has_no_other_numbers() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = " ".join(re.sub(r"```.*?```|^>.*?$", " ", text, flags=re.DOTALL | re.MULTILINE).split())
    for sentence in readme():
        text = text.replace(sentence, " ")
    text = re.sub(r"`[^`]*`", " ", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    assert set(NUMBER.findall(text)) <= NOT_MEASURED
