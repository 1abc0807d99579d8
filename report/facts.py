"""The facts that report and README cite: one flat mapping of names to values and tables.

All come from recorded results. A value takes Python's formats, as in `{q1.one_class:.2%}`.
A table is a DataFrame of text; `tables.csv` says which columns it shows, and how.
"""

import json
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
import sympy
import torch

import smai_lib as smai
from smai_lib.colorization import coloring
from smai_lib.colorization import studies as colors
from smai_lib.core import paths
from smai_lib.core.study import read_table
from smai_lib.costs import formulas
from smai_lib.formats import SPACE, Mean, flat, means, show, show_value
from smai_lib.multitask import recipe, studies, tradeoff
from smai_lib.multitask.data import CLASSES
from smai_lib.studies import STUDIES

KNOWN_TABLE_ACCURACY = 0.613  # measured before this project, on the same images
WORDS = {"z_score": "z-scored", "test_accuracy": "accuracy", "test_rmse": "ink RMSE"}


def facts() -> dict[str, object]:
    """Return all facts of the recorded results."""
    values = published() | loss_weights() | ours() | colorization() | costs() | methods()
    return values | targets(values)


def published() -> dict[str, object]:
    """Return facts about the ten configurations: A as published, B trained here."""
    study = smai.load_study("q1_published")
    runs = studies.first_seed(study.results).join(studies.PUBLISHED.add_prefix("a_"))
    runs["weights"] = [f"{a:g} : {b:g}" for a, b in runs[["lambda1", "lambda2"]].to_numpy()]
    placed = studies.placement_of_published(study)
    ink = study.table("ink_baselines").set_index("ink predicted by")
    errors = torch.tensor(studies.confusion(study, study.best)).fill_diagonal_(0)
    values = flat("q1", runs) | flat("q1.five_seeds", means(study.results)) | flat("q1.ink", ink)
    for metric in ("test_accuracy", "val_accuracy", "val_rmse"):
        values |= flat(f"q1.agreement.{metric}", studies.agreement(study, metric))
    values["q1.one_class"] = 1 / len(CLASSES)
    values |= flat("q1.chosen", runs.loc[study.best].to_dict() | {"name": study.best})
    values |= show("q1.ten_runs", runs.reset_index()) | show("q1.rmse", runs.reset_index())
    return values | {
        **show("q1.selection", studies.selection(study)),
        "q1.chosen.errors": int(errors.sum()),
        "q1.chosen.worst_pair": int((errors + errors.T).max()),
        "q1.placed": len(placed),
        "q1.outside": int(placed["outside"].sum()),
    }


def loss_weights() -> dict[str, object]:
    """Return facts about the ratio of the loss weights."""
    study = smai.load_study("q1_lambda")
    diagnostics = ["class_gradient", "ink_gradient", "gradient_cosine"]
    values = flat("q1.gradients", study.history.groupby("name")[diagnostics].mean())
    values |= flat("q1.ratio", means(study.results))
    pairs = tradeoff.pair_tests(study).replace(WORDS)
    trends = tradeoff.trend_tests(study).replace(WORDS)
    trends.index = trends["falls with the ratio"] + " " + trends["ink"]
    return values | flat("q1.trend", trends) | show("q1.lambda_pairs", pairs)


def ours() -> dict[str, object]:
    """Return facts about C (ladder, recipe, residual network) and about probes of B."""
    best, ladder, beyond = (smai.load_study(f"q1_{n}") for n in ("best", "ladder", "beyond"))
    tests = recipe.pooled_steps(ladder)[["rung", "t", "p_holm"]]
    steps = recipe.rungs(ladder).merge(tests, how="left")
    ablation = recipe.ablation(best)
    values = flat("q1.step", steps.set_index("rung"))
    values |= flat("q1.ablation", ablation.set_index("run"))
    values |= flat("q1.recipe", means(best.results).loc[recipe.RECIPE].to_dict())
    values |= flat("q1.residual", means(beyond.results).loc[recipe.RECIPE].to_dict())
    configs = {"b": studies.PUBLISHED_CONFIGS["config 1"], "recipe": recipe.BEST}
    for name, config in (configs | {"residual": recipe.RESIDUAL}).items():
        multiply_adds = recipe.multiply_adds(config.build_network())
        values[f"q1.{name}.million_multiply_adds"] = multiply_adds / 1e6
    plain, keys = recipe.PLAIN.to_dict(), recipe.BEST.to_dict().items()
    changes = [f"`{key}` {value} ({plain[key]})" for key, value in keys if value != plain[key]]
    values["q1.recipe.changes"] = ", ".join(changes)
    values |= show("q1.steps", steps) | show("q1.ablation", ablation)
    probes = read_table("q1_features.csv")
    values |= flat("q1.probe", probes.set_index(probes["network"] + " " + probes["layer"]))
    return values | {"q1.top_three": steps["share"].nlargest(3).sum()}


def colorization() -> dict[str, object]:
    """Return facts about Q2: baselines, the published runs, the networks, vivid colours."""
    sweep, models = smai.load_study("q2_sweep"), smai.load_study("q2_models")
    compared = colors.comparison(sweep).set_index("run")
    baselines, averages = models.table("baselines").set_index("name"), means(models.results)
    values = flat("q2", compared) | flat("q2", baselines) | flat("q2", averages)
    values |= flat("q2.agreement", colors.agreement(sweep))
    values |= flat("q2.agreement_without_17", colors.agreement(sweep, ["run 17"]))
    gains = models.table("intervals").set_index(["name", "metric"]).unstack()
    gains.columns = [f"{metric}_{kind}" for kind, metric in gains]
    images = models.table("images").groupby("class").mean()
    by_class = images[f"accuracy: {models.best}"] - images[f"accuracy: {colors.TABLE}"]
    values |= flat("q2.gain", gains) | flat("q2.class_gain", by_class.to_dict())
    values |= flat("q2.limit", models.table("ceiling").max().to_dict())
    trials = smai.load_study("q2_search").results.query("state == 'complete'")
    found = trials.sort_values("val_nll").groupby("model").first()
    values |= flat("q2.search", found) | vivid(models.table("vividness"))
    rows = pd.concat([baselines, averages]).rename_axis("name").reset_index()
    for column in rows.filter(like="mirror"):  # the same for a table of grey levels
        rows[column] = rows[column].fillna(rows.get(column.replace("mirror_", "")))
    values |= show("q2.answers", rows) | show("q2.color", rows)
    values |= show("q2.sweep", compared.reset_index()) | show("q2.networks", averages.reset_index())
    accuracy, lowest = baselines.loc[colors.TABLE, "test_accuracy"], compared["best_nll"].min()
    return values | {
        "q2.trials": len(trials),
        "q2.table_distance": abs(accuracy - KNOWN_TABLE_ACCURACY),
        "q2.published_best_nll": colors.BEST_PUBLISHED,
        "q2.best_distance": abs(lowest - colors.BEST_PUBLISHED),
    }


def vivid(table: pd.DataFrame) -> dict[str, object]:
    """Return the test metrics at vividness 0 ("likely") and 1 ("vivid")."""
    alpha = coloring.vivid_alpha(1.0, table)
    test = table.query("split == 'test'").drop(columns="split")
    likely = test.iloc[0].to_dict()
    at_alpha = {key: float(np.interp(alpha, test["alpha"], test[key])) for key in test}
    at_alpha["distance"] = abs(at_alpha["colorfulness"] / likely["colorfulness_palette"] - 1)
    at_alpha["accuracy_lost"] = likely["accuracy"] - at_alpha["accuracy"]
    return flat("q2.likely", likely) | flat("q2.vivid", at_alpha)


def costs() -> dict[str, object]:
    """Return the formulas of the colorization network, and their values at the given sizes."""
    pixels = formulas.H * formulas.W
    layers = formulas.formula_table()
    shown = pd.DataFrame({"layer": layers.index}, index=layers.index)
    for key, unit in {"weights": 1, "outputs": pixels, "macs": pixels}.items():
        factor = "" if unit == 1 else r"HW \cdot "
        ratios = [sympy.fraction(formula / unit) for formula in layers[key]]
        shares = [f"{formulas.latex(above)} / {below}" for above, below in ratios]
        shown[key] = [f"${factor}{share.removesuffix(' / 1')}$" for share in shares]
    sizes = []
    for k, side in [(3, 32), (3, 64), (5, 32), (5, 64)]:
        given = {"k": k, "H": side, "W": side}
        published = formulas.value_at(formulas.PUBLISHED["macs"], **given)
        row = formulas.evaluate(**given).loc["total"].to_dict() | {"published": published}
        sizes.append(row | {"k": k, "side": f"{side} × {side}", "ratio": published / row["macs"]})
    ratios = {f"costs.ratio_k{row['k']}": row["ratio"] for row in sizes}
    total = layers.loc["total"].to_dict() | {"published": formulas.PUBLISHED["macs"]}
    values = {"costs.weights": formulas.latex(total["weights"])}
    for key in ("outputs", "macs", "published"):
        values[f"costs.{key}"] = formulas.latex(sympy.expand(total[key] / pixels))
    values |= show("costs.layers", shown.drop("total")) | show("costs.sizes", pd.DataFrame(sizes))
    return values | ratios


def methods() -> dict[str, object]:
    """Return facts about how everything was recorded."""
    provenance = json.loads((paths.RESULTS / "provenance.json").read_text(encoding="utf-8"))
    recorded = pd.DataFrame(provenance).T.rename_axis("study").reset_index()
    recorded["count"] = recorded["runs"].fillna(recorded["trials"])
    recorded["source"] = recorded["data"].str.split(": ").str[0]
    results = [smai.load_study(name).results for name in STUDIES if name in provenance]
    faults = read_table("faults.csv").set_index("fault")
    speed = read_table("speed.csv").query("arm.str.startswith('(c)')").set_index("network")
    unrecorded = pd.read_csv(paths.REPORT / "attempts.csv", index_col="attempt")
    items = pd.read_csv(paths.REPORT / "assignment.csv", keep_default_na=False)
    text = (paths.REPORT / "report.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+) \{#(.+)\}$", text, re.MULTILINE)
    links = {anchor: f"[{heading}](#{anchor})" for heading, anchor in headings}
    items["here"] = items["here"].map(links).fillna("–")
    hours = [table["seconds"].sum() / 3600 for table in results if "seconds" in table]
    every = faults.loc["all"]
    return {
        "methods.hours": sum(hours),
        "methods.faults": every["injected"],
        "methods.survived": min(every["survived"], every["identical"]) / every["injected"],
        "methods.kills": faults.filter(like="SIGKILL", axis=0)["injected"].sum(),
        **flat("methods.speed", speed["ratio to (a)"].to_dict()),
        **flat("attempt", unrecorded),
        **show("methods.studies", recorded),
        **show("assignment", items),
    }


def targets(values: Mapping[str, object]) -> dict[str, object]:
    """Return the targets of `targets.csv` with what was reached."""
    rows = pd.read_csv(paths.REPORT / "targets.csv", keep_default_na=False).to_dict("records")
    for row in rows:
        value, goal = values[row["fact"]], float(row["goal"])
        reached = value.mean if isinstance(value, Mean) else value
        hit = reached >= goal if row["sign"] == "≥" else reached <= goal
        row["verdict"] = "reached" if hit else "missed"
        row["goal"] = f"{row['sign']}{SPACE}{show_value(goal, row['format'])}"
        row["reached"] = show_value(value, row["format"])
    table = pd.DataFrame(rows)
    return show("targets", table) | flat("targets", table["verdict"].value_counts().to_dict())
