"""Clean controls: images known to be in no benchmark, edited like the planted copies; and exact binomial intervals.

What the audit says of them is the rate of false positives measured in this very run, with these benchmarks. The planted
copies are each signal's own: see `signals.signal.Signal.plant`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.benchmarks.image_files import list_benchmark, read_original
from cavendish.mixing.audit.benchmarks.image_pack import Pack
from cavendish.mixing.audit.config import ControlSettings
from cavendish.mixing.audit.edits import EDITS, procedural_picture
from cavendish.mixing.audit.signals.images import CONTROL_EDITS, Thresholds, scan_image
from cavendish.mixing.audit.signals.signal import strongest
from cavendish.mixing.images import encode_png


@dataclass(frozen=True)
class Interval:
    """A share with its two-sided 95 % Clopper-Pearson interval."""

    hits: int
    trials: int
    low: float
    high: float


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the exact binomial interval of a share.

    Source: Clopper and Pearson 1934.
    """
    alpha = 1 - confidence
    low = 0.0 if hits == 0 else float(beta.ppf(alpha / 2, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - alpha / 2, hits + 1, trials - hits))
    return Interval(hits, trials, round(low, 4), round(high, 4))


def scan_clean_controls(
    packs: tuple[Pack, ...], settings: ControlSettings, thresholds: Thresholds, data: Path
) -> list[dict[str, Any]]:
    """Scan images known to be clean, edited like the copies.

    Returns:
        For each: image, edit, found ("leak", "review" or None), of ("benchmark/image" or None).
    """
    names: list[str] = []
    if settings.clean_folder is not None:
        folder = data / settings.clean_folder
        names = list(list_benchmark(folder).images)
        if not names:
            raise InputError(f"{folder}: controls.clean_folder holds no image")
    results = []
    for i in range(settings.clean):
        rng = np.random.default_rng([settings.seed, 3, i])
        if names:
            name = names[i % len(names)]
            image = read_original(folder, name)
        else:
            name, image = f"synthetic {i}", procedural_picture(rng, 384, 512)
        edit = CONTROL_EDITS[i % len(CONTROL_EDITS)]
        edited = EDITS[edit](image, rng)
        _, findings = scan_image(edited, encode_png(edited), packs, thresholds)
        found = strongest({finding.level for finding in findings})
        of = next((f"{one.benchmark}/{one.image}" for one in findings if one.level == found), None)
        results.append({"image": name, "edit": edit, "found": found, "of": of})
    return results
