"""``msmae compare``: arms x seeds (x folds) on the same splits and budget, resumable run by run, and one page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmae.config import ARMS, check_adaptation, check_method, check_used, require
from msmae.errors import count
from msmae.verbs.begin import (
    TRAINING,
    Asked,
    as_recorded,
    audited,
    check_classifier,
    check_folder,
    check_machine,
    known_to_start,
    open_data,
    settings_of,
)

if TYPE_CHECKING:
    from msmae.data.manifest import Manifest


def compare(
    data: str,
    *,
    out: str,
    arms: list[str] = ["vit", "mae", "supmae", "msmae"],  # noqa: B006
    seeds: list[int] = [0, 1, 2],  # noqa: B006
    folds: int = 0,
    budget: str = "epochs",
    preset: str | None = None,
    config: str | None = None,
    init: str | None = None,
    encoders: str | None = None,
    columns: bool = True,
    allow_leakage: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Compare arms on the same splits with the same budget. The same command continues a stopped comparison.

    You may start the same command several times: the processes share the runs, and one at a time plans and reports. You
    may add arms and seeds later. The splits are drawn once, by the first seed.

    Args:
        data: a folder, a CSV/TSV manifest, an .npz, or `phantom`.
        out: folder of the comparison; its runs: ARM/SEED.
        arms: ways to train: vit, mae, supmae, amt, msmae, msmae-shuffled, msmae-released; with
            --init also probe, probe-knn, probe-attentive; and the baselines majority, pca-svm, resnet18, small-cnn,
            efficientnet-lite0.
        seeds: seeds of the training.
        folds: folds of a cross-validation, in which every image is tested once. 0: the data's own test split, or a
            new one.
        budget: what is equal for all arms: epochs, gmacs or seconds.
        preset: settings to start from: auto, cpu, gpu, tiny, or another shipped recipe. Unless given: auto.
        config: YAML file of settings that override the preset's. Of a run's config.yaml also init and preset are taken,
            unless given here.
        init: a pretrained encoder to start every arm from, as in `msmae run`.
        encoders: another comparison of the same data: its pre-trained encoders are fine-tuned here.
        columns: also test a linear probe and nearest neighbours on the frozen encoder, and the model on the most
            attended quarter of the patches (false: do not).
        allow_leakage: go on although the data leak into the test split; every report says so.
        settings: groups of settings to change, for instance ``pretrain={"epochs": 5}``.

    Returns:
        The content of comparison.json.

    Raises:
        LeakageError: test images or patients are also in training or validation.
        UserError: the data, a setting or the folder is not usable; a run was made with other settings.
    """
    from msmae.comparison.baselines import check_baselines, check_packages, without_rivals
    from msmae.comparison.runner import PLAN, Bench, Request, claimed, cut_folds, finished, parts_of, read_plan

    preset, init = as_recorded(config, preset=preset, init=init).values()
    request = Request.of(arms, seeds, folds=folds, budget=budget)
    check_packages(request.arms)
    borrowed = Path(encoders) if encoders else None
    if borrowed is not None:
        require(read_plan(borrowed) != {}, f"no comparison in {encoders}", where="--encoders", mend="name its --out")
    check_folder(out, data, finished=(), ours=(PLAN,))
    chosen, start = settings_of(preset, config, settings, groups=TRAINING, weights=init)
    for arm in request.arms:
        if arm in ARMS:
            check_adaptation(chosen, arm, started=start is not None)
    check_method(chosen, "msmae", started=start is not None)  # whose draw all arms share
    if request.budget == "epochs" and not read_plan(Path(out)):  # other budgets, and the arms of before, use more
        check_used(settings, chosen, list(dict.fromkeys(arm if arm in ARMS else "vit" for arm in request.arms)))
    asked = Asked(data, Path(out), chosen, start, allow_leakage=allow_leakage, preset=preset, init=init)
    folder = asked.folder
    check_machine(asked)
    from msmae.runs.folder import write_json
    from msmae.runs.lock import held
    from msmae.training.pretrain import check_training
    from msmae.verbs.report import report
    from msmae.verbs.show import show_start

    def check_whole(manifest: Manifest) -> None:
        check_baselines(request.arms, manifest)
        if not request.folds:  # they set the splits of the data aside
            check_classifier(manifest)

    with held(folder, wait=True):
        before = read_plan(folder)
        first_seed = before.get("split_seed", request.seeds[0])
        whole = open_data(asked, first=check_whole, seed=first_seed, goes_on=False)
        manifests = cut_folds(whole, request, settings=asked.settings, seed=first_seed)
        audits = [{**audited(asked, manifest).to_dict(), **known_to_start(asked, manifest)} for manifest in manifests]
        bench = Bench(data, manifests, chosen, given=asked.given, encoders=borrowed, start=start)
        request = dataclasses.replace(request, arms=without_rivals(request.arms, bench.prepared))
        for arm in request.arms:
            if arm in ARMS:
                check_training(dataclasses.replace(bench.prepared[0], method=arm))
        show_start(bench.prepared[0], request.arms)
        plan = bench.plan(request, before, where=folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PLAN, plan)
        write_json(folder / "audit.json", audits[0])
        whole.write(folder / "manifest.csv")
    parts = parts_of(plan)
    for number, part in enumerate(parts, start=1):
        with claimed(folder, part) as free:
            state = "another process is at it" if not free else "done before" if finished(folder, part) else "starts"
            print(f"run {number} of {len(parts)}: {part.name}: {state}", flush=True)
            if free:
                bench.make(part, folder / part.name, plan, audit=audits[max(0, part.fold - 1)], columns=columns)
        with held(folder, wait=True):
            plan = read_plan(folder)  # another process may have added runs
            plan["missing"] = [part.name for part in parts_of(plan) if not finished(folder, part)]
            write_json(folder / PLAN, plan)
    if plan["missing"]:
        print(
            f"with another process: {len(plan['missing'])} of {count(len(parts), 'run')}; "
            "the last to finish writes the page"
        )
        return plan
    with held(folder, wait=True):
        report(str(folder))
    return plan
