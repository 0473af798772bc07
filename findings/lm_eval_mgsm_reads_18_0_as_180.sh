#!/usr/bin/env bash
# Guess:   the task mgsm of lm_eval compares numbers: 18.0 and 18 are one answer, −18 and 18 are two.
# Reality: it compares texts without their punctuation, and points and minus signs are punctuation. "18.0" is wrong for 18 and right
#          for 180, "7.50" right for 750, "-18" right for 18. So do 239 task files of this release that set ignore_punctuation.
# Seen:    18.0 for 18: 0, 18.0 for 180: 1, 7.50 for 750: 1, -18 for 18: 1
# Version: lm_eval 0.4.13
# Source:  https://github.com/EleutherAI/lm-evaluation-harness/blob/main/lm_eval/tasks/mgsm/direct/direct_yaml and
#          exact_match_hf_evaluate in lm_eval/api/metrics.py
. "$(dirname "$0")/fresh_venv"
install torch==2.13.0
install lm_eval==0.4.13
run <<'PY'
from pathlib import Path

import lm_eval.tasks
import yaml
from lm_eval.api.metrics import exact_match_fn
from lm_eval.filters.extraction import RegexFilter

task = yaml.safe_load((Path(lm_eval.tasks.__file__).parent / "mgsm" / "direct" / "direct_yaml").read_text())
options = {key: task["metric_list"][0][key] for key in ("ignore_case", "ignore_punctuation")}
flexible = next(entry for entry in task["filter_list"] if entry["name"] == "flexible-extract")["filter"][0]
extract = RegexFilter(regex_pattern=flexible["regex_pattern"], group_select=flexible["group_select"])


def grade(completion, target):
    ((read,),) = extract.apply([[completion]], [{}])
    mark = float(exact_match_fn(predictions=[read], references=[target], **options)["exact_match"])
    print(f"{completion!r} for {target}: read {read!r}, {mark:.0f}")
    return mark


assert grade("That makes 18.0", "18") == 0
assert grade("That makes 18.0", "180") == 1
assert grade("She pays $7.50", "750") == 1
assert grade("That makes -18", "18") == 1
PY
