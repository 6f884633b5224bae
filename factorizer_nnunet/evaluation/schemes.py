"""How challenges score, by year: all their constants, each with its source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.evaluation import parts as tumor
from factorizer_nnunet.evaluation.empty import DEFAULT_POLICY, DIAGONAL_VOXELS, EmptyPolicy, EmptyValues, Value, changed
from factorizer_nnunet.evaluation.lesions import LesionRule
from factorizer_nnunet.evaluation.parts import CC, CORE, ED, GTV, LESION, NCR, WHOLE

Labels = tuple[int, ...]

# The challenges' own code.
M23 = "github.com/rachitsaluja/BraTS-2023-Metrics, metrics.py"
M24 = "github.com/rachitsaluja/BraTS-2024-Metrics, metrics_*.py"
I22, I24 = (f"github.com/ezequieldlrosa/isles{year}, utils/eval_utils.py" for year in (22, 24))


@dataclass(frozen=True, kw_only=True)
class ScoringScheme:
    """One way to score: the regions, what a lesion is, and the values for empty masks."""

    key: str
    title: str
    source: str
    ranked_by: tuple[str, ...] = ()  # metrics that the challenge ranked by
    regions: Mapping[str, Labels] | None = None  # label values as in the release; None: the regions of dataset.json
    parts: Mapping[int, str] = field(default_factory=dict)  # what each value of the release means, see `parts`
    rule: LesionRule = LesionRule()
    region_rules: Mapping[Labels, LesionRule] = field(default_factory=dict)  # of regions that have their own rule
    empty: EmptyPolicy = field(default_factory=lambda: DEFAULT_POLICY)

    def rule_of(self, labels: Labels) -> LesionRule:
        """The rule for a region, given by its label values."""
        return self.region_rules.get(labels, self.rule)

    def renumbered(self, values: Mapping[int, Labels]) -> ScoringScheme:
        """The scheme for files with other label values; regions of which no value is given are left out.

        Args:
            values: those of the files, by value of the release.
        """

        def new(labels: Labels) -> Labels:
            return tuple(sorted(value for label in labels for value in values.get(label, ())))

        def rule(old: LesionRule) -> LesionRule:
            return replace(old, joined_by=tuple(found for labels in old.joined_by if (found := new(labels))))

        return replace(
            self,
            regions={name: found for name, labels in (self.regions or {}).items() if (found := new(labels))},
            rule=rule(self.rule),
            region_rules={found: rule(own) for labels, own in self.region_rules.items() if (found := new(labels))},
        )


def _brats_policy(penalty: Value) -> EmptyPolicy:
    """Both masks empty: perfect scores; one empty: Dice 0, and the penalty for HD95."""
    perfect = EmptyValues(both=1.0)
    return {
        **DEFAULT_POLICY,
        "dice": perfect,
        "sensitivity": EmptyValues(both=1.0, reference=0.0),
        "hd95": EmptyValues(0.0, penalty, penalty),
        "nsd": EmptyValues(1.0, 0.0, 0.0),
        "lesion_f1": perfect,
        "lesion_dice": perfect,
        "lesion_hd95": EmptyValues(both=0.0),
    }


WT, TC, ET, NETC, SNFH, RC = (1, 2, 3), (1, 3), (3,), (1,), (2,), (4,)  # values of BraTS from 2023 on
ADULT = {"WT": WT, "TC": TC, "ET": ET}
ADULT_PARTS = {1: NCR, 2: ED, 3: tumor.ET}
UP_TO_2021 = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
UP_TO_2021_PARTS = {1: NCR, 2: ED, 4: tumor.ET}
PED24_PARTS = {1: tumor.ET, 2: NCR, 3: CC, 4: ED}
FULL_NAMES = {
    "WT": WHOLE,
    "TC": CORE,
    "ET": tumor.ET,
    "NETC": "non-enhancing tumor core",
    "SNFH": "FLAIR hyperintensity",
    "RC": tumor.RC,
    "CC": CC,
    "ED": ED,
    "GTV": GTV,
}
PED24 = {"WT": (1, 2, 3, 4), "TC": (1, 2, 3), "ET": (1,), "NETC": (2,), "CC": (3,), "ED": (4,)}
RANKED_BY_LESIONS = ("lesion_dice", "lesion_hd95")
BRATS_2021_MM, BRATS_2023_MM = 373.13, 374.0  # approximately the diagonal of 240 × 240 × 155 voxels
GLI_2024_MM = 337.0  # approximately that of 182 × 218 × 182 voxels


def _brats_plain(year: int) -> ScoringScheme:
    return ScoringScheme(
        key=f"brats{year}",
        title=f"BraTS {year}",
        source="www.med.upenn.edu/cbica/brats2019/evaluation.html; values for empty masks from participants' reports",
        ranked_by=("dice", "hd95"),
        regions=UP_TO_2021,
        parts=UP_TO_2021_PARTS,
        empty=_brats_policy(BRATS_2021_MM),
    )


def _brats_2023(task: str, dilation: int, limit_mm3: float) -> ScoringScheme:
    return ScoringScheme(
        key=f"brats2023-{task}",
        title=f"BraTS 2023 {task.upper()}, lesion-wise",
        source=M23,
        ranked_by=RANKED_BY_LESIONS,
        regions=ADULT,
        parts=ADULT_PARTS,
        rule=LesionRule(dilation=dilation, min_reference_mm3=limit_mm3, penalty=BRATS_2023_MM),
        empty=_brats_policy(BRATS_2023_MM),
    )


def _rule_2024(dilation: int, limit_mm3: float, penalty: Value, *joined_by: Labels) -> LesionRule:
    return LesionRule(
        dilation=dilation,
        dilate_predictions=True,
        min_reference_mm3=limit_mm3,
        min_prediction_mm3=limit_mm3,
        penalty=penalty,
        joined_by=joined_by,
    )


def _brats_2024(
    task: str,
    parts: Mapping[int, str],
    regions: Mapping[str, Labels],
    rule: LesionRule,
    region_rules: Mapping[Labels, LesionRule] | None = None,
) -> ScoringScheme:
    return ScoringScheme(
        key=f"brats2024-{task}",
        title=f"BraTS 2024 {task.upper()}, lesion-wise",
        source=M24,
        ranked_by=RANKED_BY_LESIONS,
        regions=regions,
        parts=parts,
        rule=rule,
        region_rules=region_rules or {},
        empty=_brats_policy(rule.penalty),
    )


_BRATS_2024 = (
    _brats_2024(
        "gli",
        {**ADULT_PARTS, 4: tumor.RC},
        {**ADULT, "NETC": NETC, "SNFH": SNFH, "RC": RC},
        _rule_2024(3, 20, GLI_2024_MM),
        {
            ET: _rule_2024(3, 10, GLI_2024_MM, NETC, RC),
            NETC: _rule_2024(5, 20, GLI_2024_MM, ET, RC),
            RC: _rule_2024(5, 20, GLI_2024_MM, ET, NETC),
            SNFH: _rule_2024(3, 20, GLI_2024_MM, ET, RC, NETC),  # M24 intends 5 but compares with "SFNH"
        },
    ),
    _brats_2024(
        "ssa", ADULT_PARTS, ADULT, _rule_2024(3, 50, BRATS_2023_MM), {ET: _rule_2024(3, 50, BRATS_2023_MM, NETC)}
    ),
    _brats_2024(
        "met",
        {**ADULT_PARTS, 4: tumor.RC},
        {**ADULT, "RC": RC},
        _rule_2024(1, 2, DIAGONAL_VOXELS),
        {ET: _rule_2024(1, 2, DIAGONAL_VOXELS, NETC)},
    ),
    _brats_2024("ped", PED24_PARTS, PED24, _rule_2024(5, 10, BRATS_2023_MM)),
    _brats_2024("men-rt", {1: GTV}, {"GTV": (1,)}, replace(_rule_2024(1, 50, DIAGONAL_VOXELS), punish_false=False)),
)


def _brats_2025(last: ScoringScheme) -> ScoringScheme:
    """The rules of 2024, still in the code of July 2025; the ranking of 2025 is not confirmed."""
    key, title = (text.replace("2024", "2025") for text in (last.key, last.title))
    return replace(last, key=key, title=title, source=f"{M24} (July 2025); not confirmed for 2025", ranked_by=())


_ISLES_POLICY = {**DEFAULT_POLICY, "dice": EmptyValues(both=1.0), "lesion_f1": EmptyValues(both=1.0)}
_ISLES_RANKED = ("dice", "volume_error", "lesion_count_error", "lesion_f1")

NONE = ScoringScheme(key="none", title="no challenge's scheme", source="")
SCHEMES: dict[str, ScoringScheme] = {
    scheme.key: scheme
    for scheme in (
        NONE,
        *(_brats_plain(year) for year in (2018, 2019, 2020, 2021)),
        _brats_2023("gli", 3, 50),
        _brats_2023("ssa", 3, 50),
        _brats_2023("ped", 3, 50),
        _brats_2023("men", 1, 50),
        _brats_2023("met", 1, 2),
        *_BRATS_2024,
        *map(_brats_2025, _BRATS_2024),
        ScoringScheme(
            key="isles2022",
            title="ISLES'22",
            source=I22,
            ranked_by=_ISLES_RANKED,
            regions={LESION: (1,)},
            parts={1: LESION},
            empty=_ISLES_POLICY,
        ),
        ScoringScheme(
            key="isles2024",
            title="ISLES'24",
            source=f"{I24}; IoU of 0.2 in its later version, 0.5 in its first",
            ranked_by=_ISLES_RANKED,
            regions={LESION: (1,)},
            parts={1: LESION},
            rule=LesionRule(min_iou=0.2),
            empty=_ISLES_POLICY,
        ),
    )
}


def scheme_named(name: str, lesion_rule: LesionRule | None = None, empty: Iterable[str] = ()) -> ScoringScheme:
    """The scheme with this name, a key of `SCHEMES`.

    Args:
        name: such as "brats2023-gli", or "none".
        lesion_rule: what a lesion is; only for "none".
        empty: changes to the values for empty masks, such as "dice:both=1"; only for "none".

    Raises:
        UserError: the scheme is unknown or cannot be changed, or a change is invalid.
    """
    if name not in SCHEMES:
        raise UserError(f"unknown scheme {name!r}: choose from {', '.join(SCHEMES)}")
    scheme, changes = SCHEMES[name], tuple(empty)
    if scheme is not NONE and (lesion_rule is not None or changes):
        raise UserError(
            f"the scheme {name} defines lesions and the values for empty masks: change them only without a scheme"
        )
    return replace(scheme, rule=lesion_rule or scheme.rule, empty=changed(scheme.empty, changes))
